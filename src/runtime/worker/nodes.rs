//! What a task on several workers is told about them: files in its scratch folder, and the variables by which the
//! usual `mpirun`s find those files and start their daemons over ssh, whatever batch system each worker is in.

use crate::runtime::protocol::NodePart;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One line `HOST slots=CORES` for each host, as Open MPI reads it.
const SLOTS: &str = "nodes";
/// One line `HOST:CORES` for each host, as MPICH and Intel MPI read it.
const COLONS: &str = "nodes.hydra";

/// Writes the files into the folder and returns the variables.
pub(super) fn announce(nodes: &[NodePart], folder: &Path) -> io::Result<Vec<(&'static str, String)>> {
    let names = nodes.iter().map(|part| part.node.as_str()).collect::<Vec<_>>().join(",");
    let hosts = by_host(nodes);
    let slots = write(&folder.join(SLOTS), hosts.iter().map(|(host, cores)| format!("{host} slots={cores}\n")))?;
    let colons = write(&folder.join(COLONS), hosts.iter().map(|(host, cores)| format!("{host}:{cores}\n")))?;
    // A batch system's module would take the one node of this worker's job for all there is.
    let not_theirs = || "^slurm,tm,lsf,gridengine".to_owned();
    let not_theirs_either = || "^slurm,pbs,lsf,gridengine".to_owned();
    Ok(vec![
        ("DCLUSTER_TASK_NODE_COUNT", nodes.len().to_string()),
        ("DCLUSTER_NODES", names),
        ("DCLUSTER_NODE_FILE", slots.clone()),
        // Open MPI to version 4.
        ("OMPI_MCA_orte_default_hostfile", slots.clone()),
        ("OMPI_MCA_ras", not_theirs()),
        ("OMPI_MCA_plm", not_theirs()),
        // Open MPI from version 5.
        ("PRTE_MCA_prte_default_hostfile", slots),
        ("PRTE_MCA_ras", not_theirs_either()),
        ("PRTE_MCA_plm", not_theirs_either()),
        // MPICH.
        ("HYDRA_HOST_FILE", colons.clone()),
        ("HYDRA_LAUNCHER", "ssh".to_owned()),
        // Intel MPI.
        ("I_MPI_HYDRA_HOST_FILE", colons),
        ("I_MPI_HYDRA_BOOTSTRAP", "ssh".to_owned()),
    ])
}

/// Returns each host once, with all the cores there: Open MPI refuses a file that names one twice.
fn by_host(nodes: &[NodePart]) -> Vec<(&str, u64)> {
    let mut hosts: Vec<(&str, u64)> = Vec::new();
    for part in nodes {
        let cores = u64::from(part.cores);
        match hosts.iter_mut().find(|(host, _)| *host == part.node) {
            Some((_, sum)) => *sum += cores,
            None => hosts.push((&part.node, cores)),
        }
    }
    hosts
}

fn write(path: &Path, lines: impl Iterator<Item = String>) -> io::Result<String> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(lines.collect::<String>().as_bytes())?;
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ids::WorkerId;

    #[test]
    fn each_kind_of_mpi_finds_the_nodes_in_its_own_form() {
        let folder = tempfile::tempdir().unwrap();
        let part = |worker, node: &str, cores| NodePart { worker: WorkerId(worker), node: node.to_owned(), cores };
        let variables = announce(&[part(1, "n01", 8), part(2, "n02", 4)], folder.path()).unwrap();
        let of = |name: &str| variables.iter().find(|(other, _)| *other == name).unwrap().1.clone();
        assert_eq!(std::fs::read_to_string(of("DCLUSTER_NODE_FILE")).unwrap(), "n01 slots=8\nn02 slots=4\n");
        assert_eq!(of("OMPI_MCA_orte_default_hostfile"), of("DCLUSTER_NODE_FILE"));
        assert_eq!(of("PRTE_MCA_prte_default_hostfile"), of("DCLUSTER_NODE_FILE"));
        assert_eq!(std::fs::read_to_string(of("HYDRA_HOST_FILE")).unwrap(), "n01:8\nn02:4\n");
        assert_eq!(of("I_MPI_HYDRA_HOST_FILE"), of("HYDRA_HOST_FILE"));
        assert_eq!((of("DCLUSTER_NODES"), of("DCLUSTER_TASK_NODE_COUNT")), ("n01,n02".into(), "2".into()));
    }

    #[test]
    fn a_host_of_several_workers_is_named_once_in_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let part = |worker, node: &str, cores| NodePart { worker: WorkerId(worker), node: node.to_owned(), cores };
        let nodes = [part(1, "n02", 2), part(2, "n01", 2), part(3, "n02", 2)];
        let variables = announce(&nodes, folder.path()).unwrap();
        let of = |name: &str| variables.iter().find(|(other, _)| *other == name).unwrap().1.clone();
        assert_eq!(std::fs::read_to_string(of("DCLUSTER_NODE_FILE")).unwrap(), "n02 slots=4\nn01 slots=2\n");
        assert_eq!(std::fs::read_to_string(of("HYDRA_HOST_FILE")).unwrap(), "n02:4\nn01:2\n");
        assert_eq!((of("DCLUSTER_NODES"), of("DCLUSTER_TASK_NODE_COUNT")), ("n02,n01,n02".into(), "3".into()));
    }
}
