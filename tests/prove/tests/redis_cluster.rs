//! Redis Cluster under the same hands as ours: it is formed, loses a master, and is whole again.
#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use scatterhoard_prove::arena::{Arena, Plot};
use scatterhoard_prove::target::Target;
use scatterhoard_prove::target::redis_cluster::{NODES_COUNT, RedisCluster};

/// Only a cluster that never gets there fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_replica_takes_over_from_a_killed_master_which_comes_back_as_a_replica() {
    let target = RedisCluster::of(PathBuf::from("redis-server")).unwrap();
    let dir = std::env::temp_dir().join(format!("redis-cluster-{}", std::process::id()));
    let plot = Plot {
        target: &target,
        nodes_count: NODES_COUNT,
        dir: dir.clone(),
        clients: None,
        faketime: None,
        seed: 1,
    };
    let mut arena = Arena::new(plot).unwrap();
    arena.form().unwrap();
    until_whole(&target, &arena);
    assert_eq!(leader_of_the_first(&target, &arena), Some(1));

    arena.kill(1);
    until("a replica took over", || leader_of_the_first(&target, &arena).is_some_and(|it| it > 3));
    arena.start(1).unwrap();
    until_whole(&target, &arena);
    let leader = leader_of_the_first(&target, &arena);
    assert!(leader.is_some_and(|it| it > 3), "{leader:?} leads");

    drop(arena);
    std::fs::remove_dir_all(dir).unwrap();
}

fn until_whole(target: &RedisCluster, arena: &Arena<'_>) {
    until("it was whole", || {
        arena.founders().iter().all(|site| {
            let view = target.view(site);
            view.is_ok_and(|view| view.lacks.is_empty() && view.members == NODES_COUNT)
        })
    });
}

/// Who says that it leads the first partition.
fn leader_of_the_first(target: &RedisCluster, arena: &Arena<'_>) -> Option<usize> {
    let leads = |number: &usize| {
        let view = target.view(&arena.founders()[number - 1]);
        view.is_ok_and(|view| view.leads.iter().any(|lead| lead.partition == 0))
    };
    arena.running().into_iter().find(leads)
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "it took too long until {what}");
        thread::sleep(Duration::from_millis(100));
    }
}
