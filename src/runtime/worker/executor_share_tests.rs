//! What a run has for itself, with real processes: environment, scratch folder, memory, cores, list of nodes.

use super::*;
use crate::runtime::ids::WorkerId;
use crate::runtime::protocol::{GpuPart, NodePart};

#[test]
fn environment_of_single_tasks_and_elements() {
    alone(|| {
        let mut bed = Bed::with_gpus(&["0", "GPU-1"]);
        let mut body = bed.body(&["env"]);
        body.env.insert("DCLUSTER_TASK_ID".into(), "forged".into());
        body.env.insert("MINE".into(), "yes".into());
        assert_eq!(bed.run(body), Outcome::Finished);
        let scratch = |line: &str| match line.split_once("TMPDIR=") {
            Some((name, path)) => {
                let parts: Vec<&str> = path.rsplit('/').collect();
                assert!(parts[1].starts_with("dcluster-dcabcd-000005-"), "{path}");
                format!("{name}TMPDIR=[scratch]/{}", parts[0])
            }
            None => line.to_owned(),
        };
        let ours = |text: &str| {
            let mut lines: Vec<String> = text
                .lines()
                .filter(|line| {
                    ["DCLUSTER_", "OMP", "CUDA", "MINE", "INHERITED", "TMPDIR"]
                        .iter()
                        .any(|start| line.starts_with(start))
                })
                .map(scratch)
                .collect();
            lines.sort();
            lines.join("\n")
        };
        insta::assert_snapshot!(ours(&bed.stdout()), @"
        CUDA_VISIBLE_DEVICES=
        DCLUSTER_CLUSTER=demo
        DCLUSTER_JOB=dcabcd-000005
        DCLUSTER_TASK_CORES=1
        DCLUSTER_TASK_ID=3
        DCLUSTER_TASK_RUN=1099511627777
        DCLUSTER_TASK_TMPDIR=[scratch]/1
        INHERITED=ü
        MINE=yes
        OMP_NUM_THREADS=1
        TMPDIR=[scratch]/1
        ");

        let mut body = bed.body(&["env"]);
        body.env.insert("OMP_NUM_THREADS".into(), "9".into());
        body.needs.variants[0].cores = 4;
        body.needs.variants[0].memory_bytes = 5000;
        body.needs.variants[0].gpus = Gpus::whole(2);
        body.indexes = Indexes::Range { first: 10, count: 3, step: 5 };
        assert!(matches!(bed.try_start(2, body.clone()), Err(StartError::NoGpu { offered: 2, .. })));
        let gpu = |gpu| GpuPart { gpu, share: Gpus(500) };
        bed.place.gpus = vec![gpu(2)];
        assert!(matches!(bed.try_start(2, body.clone()), Err(StartError::NoGpu { offered: 2, .. })));
        bed.place.gpus = vec![gpu(0), gpu(1)];
        bed.try_start(1, body).unwrap();
        bed.wait(1);
        insta::assert_snapshot!(ours(&bed.read("cluster/tasks/3/15.out")), @"
        CUDA_VISIBLE_DEVICES=0,GPU-1
        DCLUSTER_CLUSTER=demo
        DCLUSTER_JOB=dcabcd-000005
        DCLUSTER_TASK_CORES=4
        DCLUSTER_TASK_ID=3.15
        DCLUSTER_TASK_INDEX=15
        DCLUSTER_TASK_MEMORY_BYTES=5000
        DCLUSTER_TASK_RUN=1099511627780
        DCLUSTER_TASK_TMPDIR=[scratch]/1
        INHERITED=ü
        OMP_NUM_THREADS=9
        TMPDIR=[scratch]/1
        ");
    });
}

#[test]
fn scratch_folders_are_private_and_go_with_the_run() {
    alone(|| {
        let mut bed = Bed::new();
        let script = "test -z \"$(ls -A \"$TMPDIR\")\" && touch \"$TMPDIR/x\" && echo \"$TMPDIR\"";
        let body = bed.shell(script);
        assert_eq!(bed.run(body), Outcome::Finished);
        let first = bed.stdout();
        assert!(!Path::new(first.trim()).exists());
        let body = bed.shell(script);
        assert_eq!(bed.run(body), Outcome::Finished);
        let root = Path::new(bed.stdout().trim()).parent().unwrap().to_owned();
        assert_eq!(mode(&root), 0o700);
        let mut body = bed.shell("echo $TMPDIR");
        body.env.insert("TMPDIR".into(), "/mine".into());
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.stdout(), "/mine\n");
        bed.executor = Bed::new().executor;
        assert!(!root.exists());
    });
}

#[test]
fn more_memory_than_asked_for_ends_the_task_with_all_it_started() {
    alone(|| {
        let mut bed = Bed::new();
        // The hog is another process than the task's own, in a session of its own.
        let hog = "setsid sh -c 'echo $$ >hog; (head -c 60M /dev/zero; exec sleep 100) | tail -n 1'; echo late";
        let mut body = bed.shell(hog);
        body.needs.variants[0].memory_bytes = 500 << 20;
        let (run, _) = bed.start(body.clone());
        bed.until("it has taken its memory", |bed| {
            bed.now += 1_000;
            bed.executor.on_deadline(bed.now);
            bed.executor.memory.peak(run) > 60 << 20
        });
        assert!(bed.executor.on_child_signal(bed.now).is_empty(), "less than it asked for");
        bed.executor.kill(run, bed.now);
        assert_eq!(bed.wait(1)[0].outcome, Outcome::Killed);

        body.needs.variants[0].memory_bytes = 20 << 20;
        bed.start(body);
        let mut reports = vec![];
        bed.until("it is ended", |bed| {
            bed.now += 1_000;
            bed.executor.on_deadline(bed.now);
            reports.extend(bed.executor.on_child_signal(bed.now));
            !reports.is_empty()
        });
        let report = reports.remove(0);
        let Outcome::MemoryLimit { used_bytes, limit_bytes: 20_971_520 } = report.outcome else {
            panic!("{report:?}");
        };
        assert!(used_bytes > 20 << 20 && report.usage.memory_bytes >= used_bytes, "{report:?}");
        let hog = bed.read("hog");
        bed.until("the hog is gone", |bed| {
            bed.executor.on_child_signal(bed.now);
            !alive(&hog)
        });
        assert_eq!(bed.executor.memory.next(), None);
    });
}

#[test]
fn pinned_tasks_have_cores_of_their_own() {
    alone(|| {
        let mut bed = Bed::new();
        bed.executor.stock.pin(Cores::of_host(1).unwrap());
        let body =
            bed.shell("echo $DCLUSTER_TASK_CPUS; sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status");
        assert_eq!(bed.run(body.clone()), Outcome::Finished);
        let text = bed.stdout();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{text}");
        bed.start(bed.body(&["sleep", "100"]));
        assert!(matches!(bed.try_start(0, body), Err(StartError::NoCores { wanted: 1, free: 0 })));
        bed.executor.kill_descendants(PATIENCE, 0);
    });
}

#[test]
fn a_task_on_several_workers_knows_them() {
    alone(|| {
        let mut bed = Bed::new();
        let part = |worker, node: &str| NodePart { worker: WorkerId(worker), node: node.to_owned(), cores: 2 };
        bed.place.nodes = vec![part(1, "n1"), part(2, "n2")];
        let body =
            bed.shell("cat $DCLUSTER_NODE_FILE $HYDRA_HOST_FILE; stat -c %a $DCLUSTER_NODE_FILE; echo $DCLUSTER_NODES");
        assert_eq!(bed.run(body.clone()), Outcome::Finished);
        assert_eq!(bed.stdout(), "n1 slots=2\nn2 slots=2\nn1:2\nn2:2\n600\nn1,n2\n");
        // Nothing of it stays for one that runs alone.
        bed.place.nodes.clear();
        let body = bed.shell("echo \"[$DCLUSTER_NODE_FILE]\"");
        assert_eq!(bed.run(body), Outcome::Finished);
        assert_eq!(bed.stdout(), "[]\n");
    });
}
