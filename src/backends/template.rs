//! Handlebars with its holes closed; called by [`crate::backends::render`] alone. See there.

use handlebars::template::{HelperTemplate, Parameter, Template, TemplateElement};
use handlebars::{
    Context, Handlebars, Helper, HelperResult, Output, RenderContext, RenderError as Failure, RenderErrorReason,
    ScopedJson,
};
use serde::Serialize;

/// What is wrong with a template or with a value in it.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// It does not parse.
    #[error("template {template}{}: {problem}", at(*.line))]
    Syntax {
        /// Which template.
        template: String,
        /// Where.
        line: Option<usize>,
        /// What, short.
        problem: String,
    },
    /// It uses a name that does not exist.
    #[error("template {template}: unknown name {name:?}")]
    UnknownName {
        /// Which template.
        template: String,
        /// The name.
        name: String,
    },
    /// A value does not fit where it stands.
    #[error("template {template}{}: {problem}", at(*.line))]
    Value {
        /// Which template.
        template: String,
        /// Where.
        line: Option<usize>,
        /// What.
        problem: String,
    },
}

fn at(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}

/// Blocks that are built in and allowed.
const BLOCKS: &[&str] = &["if", "unless", "each"];

/// Renders the first of `files` (name, text); the others are its partials. `fields` are the names allowed;
/// `why` gives the comment that `{{why "topic"}}` puts on a line of its own, if any.
pub(super) fn render(
    files: &[(&str, &str)],
    fields: &[&str],
    values: &impl Serialize,
    why: impl Fn(&str) -> Option<String> + Send + Sync,
) -> Result<String, TemplateError> {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    registry.register_helper("sh", Box::new(ShellWord));
    registry.register_helper("line", Box::new(Line));
    registry.register_helper("why", Box::new(Why(why)));
    let partials: Vec<_> = files.iter().map(|(name, _)| *name).collect();
    for (name, text) in files {
        let template = Template::compile(text).map_err(|error| TemplateError::Syntax {
            template: (*name).to_owned(),
            line: error.pos().map(|(line, _)| line),
            problem: short(&error.reason().to_string()),
        })?;
        let allowed = Allowed { fields, partials: &partials };
        allowed
            .template(&template)
            .map_err(|unknown| TemplateError::UnknownName { template: (*name).to_owned(), name: unknown })?;
        registry.register_template(name, template);
    }
    let main = files.first().map_or("", |(name, _)| name);
    registry.render(main, values).map_err(|error| TemplateError::Value {
        template: error.template_name.clone().unwrap_or_else(|| main.to_owned()),
        line: error.line_no,
        problem: short(&error.reason().to_string()),
    })
}

/// The first line: what pest says of a syntax error is a wall of rule names.
fn short(problem: &str) -> String {
    problem.lines().next().unwrap_or_default().to_owned()
}

struct Allowed<'a> {
    fields: &'a [&'a str],
    partials: &'a [&'a str],
}

impl Allowed<'_> {
    fn template(&self, template: &Template) -> Result<(), String> {
        template.elements.iter().try_for_each(|e| self.element(e))
    }
    fn element(&self, element: &TemplateElement) -> Result<(), String> {
        match element {
            TemplateElement::RawString(_) | TemplateElement::Comment(_) => Ok(()),
            TemplateElement::Expression(helper) | TemplateElement::HtmlExpression(helper) => {
                self.helper(helper, &["sh", "line", "why"])
            }
            TemplateElement::HelperBlock(helper) => {
                self.helper(helper, BLOCKS)?;
                let inner = [&helper.template, &helper.inverse];
                inner.into_iter().flatten().try_for_each(|t| self.template(t))
            }
            TemplateElement::PartialExpression(partial) => {
                let name = partial.name.as_name().unwrap_or_default();
                match self.partials.contains(&name) {
                    true => Ok(()),
                    false => Err(format!("> {name}")),
                }
            }
            other => Err(format!("{other:?}").chars().take(40).collect()),
        }
    }
    fn helper(&self, helper: &HelperTemplate, known: &[&str]) -> Result<(), String> {
        let plain = helper.params.is_empty() && helper.hash.is_empty() && !helper.block;
        match helper.name.as_name() {
            Some(name) if plain => self.field(name)?,
            Some(name) if known.contains(&name) => {}
            name => return Err(name.unwrap_or_default().to_owned()),
        }
        let values = helper.params.iter().chain(helper.hash.values());
        values.into_iter().try_for_each(|p| self.parameter(p))
    }
    fn parameter(&self, parameter: &Parameter) -> Result<(), String> {
        match parameter {
            Parameter::Literal(_) => Ok(()),
            Parameter::Subexpression(inner) => self.element(inner.as_element()),
            named => self.field(named.as_name().unwrap_or_default()),
        }
    }
    fn field(&self, name: &str) -> Result<(), String> {
        match name == "this" || self.fields.contains(&name) {
            true => Ok(()),
            false => Err(name.to_owned()),
        }
    }
}

/// `{{sh x}}`: the value as one shell word.
struct ShellWord;
/// `{{line x}}`: the value, refused when it has a control character.
struct Line;
/// `{{why "topic"}}`: a comment line, or nothing.
struct Why<F>(F);

fn argument(helper: &Helper<'_>, name: &'static str) -> Result<String, Failure> {
    let value = helper.param(0).map(|p| p.value());
    value
        .and_then(|v| v.as_str())
        .map(str::to_owned)
        .ok_or_else(|| RenderErrorReason::ParamNotFoundForIndex(name, 0).into())
}

fn sh(helper: &Helper<'_>) -> Result<String, Failure> {
    let text = argument(helper, "sh")?;
    let quoted = shlex::try_quote(&text);
    quoted
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| RenderErrorReason::Other(format!("a NUL byte in {text:?}")).into())
}

fn line(helper: &Helper<'_>) -> Result<String, Failure> {
    let text = argument(helper, "line")?;
    match text.chars().any(char::is_control) {
        true => Err(RenderErrorReason::Other(format!("a control character in {text:?}")).into()),
        false => Ok(text),
    }
}

macro_rules! text_helper {
    ($type:ty, $function:path) => {
        impl handlebars::HelperDef for $type {
            fn call_inner<'reg: 'rc, 'rc>(
                &self,
                helper: &Helper<'rc>,
                _: &'reg Handlebars<'reg>,
                _: &'rc Context,
                _: &mut RenderContext<'reg, 'rc>,
            ) -> Result<ScopedJson<'rc>, Failure> {
                $function(helper).map(|text| ScopedJson::Derived(text.into()))
            }
        }
    };
}
text_helper!(ShellWord, sh);
text_helper!(Line, line);

impl<F: Fn(&str) -> Option<String> + Send + Sync> handlebars::HelperDef for Why<F> {
    fn call<'reg: 'rc, 'rc>(
        &self,
        helper: &Helper<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        if let Some(comment) = (self.0)(&argument(helper, "why")?) {
            let comment = comment.replace(char::is_control, " ");
            out.write(&format!("# {comment}\n"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str, values: serde_json::Value) -> Result<String, String> {
        render(&[("t", text)], &["a", "b", "list"], &values, |topic| (topic == "a").then(|| "because".to_owned()))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn quotes_and_refuses() {
        let values = json!({"a": "it's a & b", "b": "x\ny"});
        assert_eq!(one("{{a}} {{sh a}}", values.clone()).unwrap(), "it's a & b \"it's a & b\"");
        assert_eq!(one("{{line (sh a)}}", values.clone()).unwrap(), "\"it's a & b\"");
        assert_eq!(one("{{sh b}}", values.clone()).unwrap(), "'x\ny'");
        assert_eq!(
            one("\n{{line b}}", values.clone()).unwrap_err(),
            "template t, line 2: a control character in \"x\\ny\""
        );
        assert_eq!(one("{{line (sh b)}}", values).unwrap_err().lines().count(), 1);
        assert_eq!(one("{{why \"a\"}}x{{why \"b\"}}", json!({})).unwrap(), "# because\nx");
    }

    #[test]
    fn no_name_is_misspelt_in_silence() {
        for text in [
            "{{#if c}}x{{/if}}",
            "{{c}}",
            "{{#each c}}x{{/each}}",
            "{{#if a}}{{sh c}}{{/if}}",
            "{{#if a}}x{{else}}{{c}}{{/if}}",
            "{{line (sh c)}}",
            "{{#unless (not c)}}x{{/unless}}",
            "{{#c a}}x{{/c}}",
            "{{c a}}",
            "{{#with a}}x{{/with}}",
            "{{> c}}",
            "{{a.c}}",
            "{{#if a includeZero=c}}x{{/if}}",
        ] {
            let error = one(text, json!({"a": "1"})).unwrap_err();
            assert!(error.starts_with("template t: unknown name"), "{text}: {error}");
        }
        let list = one("{{#each list}}\n{{line this}}\n{{/each}}\n", json!({"list": ["p", "q"]}));
        assert_eq!(list.unwrap(), "p\nq\n");
    }

    #[test]
    fn syntax_errors_are_one_line() {
        let error = one("x\n{{#if a}}\ny", json!({})).unwrap_err();
        assert!(error.starts_with("template t") && error.lines().count() == 1, "{error}");
    }
}
