//! Tasks that can do with one thing or another, and parts of GPUs.

use super::*;

fn either(first: Request, second: Request) -> Shape {
    Shape { needs: Needs { variants: vec![first, second], nodes: 1 }, ..single() }
}
fn gpus(thousandths: u32) -> Request {
    Request { gpus: Gpus(thousandths), ..Request::default() }
}
fn plain(cores: u32) -> Request {
    Request { cores, ..Request::default() }
}
/// Element and variant of what starts.
fn chosen(actions: &[Action]) -> Vec<(u32, u8)> {
    let assigns = actions.iter().filter_map(|action| match action {
        Action::Assign { task, variant, .. } => Some((task.element, *variant)),
        _ => None,
    });
    assigns.collect()
}
/// Numbers and shares of the GPUs of what starts.
fn gpus_given(actions: &[Action]) -> Vec<(u32, u32)> {
    let places = actions.iter().filter_map(|action| match action {
        Action::Assign { place, .. } => Some(place),
        _ => None,
    });
    places.flat_map(|place| place.gpus.iter().map(|part| (part.gpu, part.share.0))).collect()
}

#[test]
fn the_second_variant_is_used_where_the_first_finds_no_room() {
    let mut bench = Bench::new(&[]);
    bench.join_with(1, capacity(4, 1), None, vec![]);
    let shape = Shape { count: 3, ..either(gpus(1000), plain(2)) };
    // One core with the GPU, then two without; one is left, which is too few for either.
    assert_eq!(chosen(&bench.submit(1, shape)), [(0, 0), (1, 1)]);
    assert_eq!(bench.free_cores(1), 1);
    assert_eq!(chosen(&bench.end(task(1, 0), Finished)), [(2, 0)]);
    bench.end(task(1, 1), Finished);
    assert_eq!(bench.free_cores(1), 3);
}

#[test]
fn a_worker_that_fits_the_first_variant_comes_before_one_that_is_filled_first() {
    let mut bench = Bench::new(&[1]);
    bench.join_with(2, capacity(8, 1), None, vec![]);
    assert_eq!(assigned(&bench.submit(1, either(gpus(1000), plain(1)))), [(2, task(1, 0))]);
}

#[test]
fn each_variant_takes_its_own_counters() {
    let mut bench = Bench::new(&[8]);
    bench.step(Event::Counters(BTreeMap::from([("lic".to_owned(), 1)])));
    let counters = BTreeMap::from([("lic".to_owned(), 1)]);
    let shape = Shape { count: 3, ..either(Request { counters, ..plain(1) }, plain(4)) };
    assert_eq!(chosen(&bench.submit(1, shape)), [(0, 0), (1, 1)]);
    assert_eq!(chosen(&bench.end(task(1, 0), Finished)), [(2, 0)]);
}

#[test]
fn a_counter_that_is_missing_for_one_variant_is_no_reason_to_wait() {
    let mut bench = Bench::new(&[1]);
    let counters = BTreeMap::from([("lic".to_owned(), 1)]);
    let shape = either(Request { counters, ..plain(1) }, plain(2));
    assert_eq!(bench.submit(1, shape), []);
    assert_eq!(bench.explain(task(1, 0)), "no worker has what any of its variants needs");
    assert_eq!(chosen(&bench.join(2, 2, &[])), [(0, 1)]);
}

#[test]
fn no_worker_is_kept_for_a_variant_whose_counter_there_is_not() {
    let mut bench = Bench::new(&[2]);
    let counters = BTreeMap::from([("lic".to_owned(), 1)]);
    assert_eq!(bench.submit(1, either(Request { counters, ..plain(1) }, plain(3))), []);
    bench.now = placement::STARVATION_MILLISECONDS;
    assert_eq!(assigned(&bench.submit(2, single())), [(1, task(2, 0))]);
}

#[test]
fn no_worker_is_kept_for_a_variant_whose_counter_others_have() {
    let mut bench = Bench::new(&[1, 1]);
    bench.step(Event::Counters(BTreeMap::from([("lic".to_owned(), 1)])));
    let licensed = || Request { counters: BTreeMap::from([("lic".to_owned(), 1)]), ..plain(1) };
    bench.submit(1, Shape { needs: licensed().into(), ..single() });
    assert_eq!(bench.submit(2, either(licensed(), plain(2))), []);
    bench.now = placement::STARVATION_MILLISECONDS;
    assert_eq!(assigned(&bench.submit(3, single())), [(2, task(3, 0))]);
    assert_eq!(assigned(&bench.end(task(1, 0), Finished)), [(1, task(2, 0))]);
}

#[test]
fn says_when_no_variant_fits_any_worker() {
    let mut bench = Bench::new(&[4]);
    bench.submit(1, either(gpus(1000), plain(5)));
    assert_eq!(bench.explain(task(1, 0)), "no worker has what any of its variants needs");
}

#[test]
fn refuses_needs_that_make_no_sense() {
    let bench = Bench::new(&[]);
    let refusal = |variants: Vec<Request>, nodes| {
        bench.scheduler.validate(&Shape { needs: Needs { variants, nodes }, ..single() }).err()
    };
    assert_eq!(refusal(vec![], 1), Some(SubmitError::Variants(0)));
    assert_eq!(refusal(vec![plain(1); 16], 1), None);
    assert_eq!(refusal(vec![plain(1); 17], 1), Some(SubmitError::Variants(17)));
    assert_eq!(refusal(vec![plain(1), plain(0)], 1), Some(SubmitError::NoCores));
    assert_eq!(refusal(vec![plain(1)], 0), Some(SubmitError::NoNodes));
    assert_eq!(refusal(vec![plain(1), plain(2)], 2), Some(SubmitError::NodesAndVariants));
    assert_eq!(refusal(vec![plain(1)], 2), None);
}

#[test]
fn a_worker_brings_back_the_variant_it_runs() {
    let mut old = Bench::new(&[]);
    old.join_with(1, capacity(4, 1), None, vec![]);
    old.submit(1, Shape { count: 2, ..either(gpus(1000), plain(2)) });
    let (_, run) = old.place_of(task(1, 1));
    let mut new = Bench { scheduler: restored(&old.scheduler, 1), now: 0 };
    new.step(Event::Hold(true));
    let held = HeldRun { task: task(1, 1), run, variant: 1, place: Place::default() };
    new.join_with(1, capacity(4, 1), None, vec![held]);
    assert_eq!(new.free_cores(1), 2);
    assert_eq!(chosen(&new.step(Event::Hold(false))), [(0, 0)]);
    // One there never was counts as the last.
    let unknown = HeldRun { task: task(1, 0), run: RunId(50), variant: 9, place: Place::default() };
    new.join_with(2, capacity(4, 1), None, vec![unknown]);
    assert_eq!(new.free_cores(2), 2);
}

#[test]
fn halves_of_a_gpu_are_of_the_same_one_and_a_third_half_waits() {
    let mut bench = Bench::new(&[]);
    bench.join_with(1, capacity(8, 1), None, vec![]);
    let actions = bench.submit(1, Shape { needs: gpus(500).into(), ..many(3) });
    assert_eq!(gpus_given(&actions), [(0, 500), (0, 500)]);
    assert_eq!((bench.running(1), bench.explain(task(1, 2))), (vec![0, 1], String::new()));
    assert_eq!(gpus_given(&bench.end(task(1, 0), Finished)), [(0, 500)]);
    bench.submit(2, Shape { needs: gpus(1500).into(), ..single() });
    assert_eq!(bench.explain(task(2, 0)), "needs 1.5 GPUs; the largest worker has 1");
}

#[test]
fn whole_gpus_of_several_tasks_are_different_ones() {
    let mut bench = Bench::new(&[]);
    bench.join_with(1, capacity(8, 4), None, vec![]);
    let actions = bench.submit(1, Shape { needs: gpus(2000).into(), ..many(2) });
    assert_eq!(gpus_given(&actions), [(0, 1000), (1, 1000), (2, 1000), (3, 1000)]);
    assert_eq!(bench.submit(2, Shape { needs: gpus(1).into(), ..single() }), []);
    assert_eq!(gpus_given(&bench.end(task(1, 1), Finished)), [(2, 1)]);
}
