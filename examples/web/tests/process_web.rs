//! Two such services, a cluster of real nodes, and one database.

use std::process::Command;
use std::time::Duration;

use scatterhoard_tests::process::{Cluster, Program, wait_until};
use serde_json::{Value, json};

/// How long is waited for what has to come to pass.
const PATIENCE: Duration = Duration::from_secs(30);

struct Web {
    url: String,
    _process: Program,
}

impl Web {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_web"));
        command.arg("127.0.0.1:0").arg(cluster.dir().join("articles.sqlite"));
        let process = cluster.program(name, command.args(cluster.addresses()));
        Self { url: process.hear(), _process: process }
    }

    fn read(&self, id: u32) -> (u16, Option<String>) {
        let (status, body) = answer(agent().get(self.article(id)).call());
        let article: Option<Value> = serde_json::from_str(&body).ok();
        (status, article.and_then(|it| Some(it.get("title")?.as_str()?.to_owned())))
    }

    fn write(&self, id: u32, title: &str) -> u16 {
        let request = agent().put(self.article(id)).content_type("application/json");
        answer(request.send(json!({ "title": title, "body": "…" }).to_string())).0
    }

    fn remove(&self, id: u32) -> u16 {
        answer(agent().delete(self.article(id)).call()).0
    }

    fn loads_count(&self) -> u64 {
        let (_, stats) = answer(agent().get(format!("{}/stats", self.url)).call());
        let stats: Value = serde_json::from_str(&stats).expect("it is JSON");
        stats["loads"].as_u64().expect("a number")
    }

    fn article(&self, id: u32) -> String {
        format!("{}/articles/{id}", self.url)
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

fn answer(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, String) {
    let mut answer = answer.expect("the service answers");
    let body = answer.body_mut().read_to_string().expect("it is text");
    (answer.status().as_u16(), body)
}

fn titled(title: &str) -> (u16, Option<String>) {
    (200, Some(title.to_owned()))
}

#[test]
fn what_one_service_writes_the_other_shows_and_the_database_is_hardly_asked() {
    let cluster = Cluster::of(3);
    let [one, other] = ["one", "other"].map(|name| Web::start(&cluster, name));
    assert_eq!([&one, &other].map(|web| web.read(1)), [(404, None), (404, None)]);
    for title in ["First", "Second"] {
        assert_eq!(one.write(1, title), 204);
        assert_eq!(one.read(1), titled(title), "who wrote it sees it at once");
        // The other one within the bound of near copies.
        wait_until("the other shows it", PATIENCE, || other.read(1) == titled(title));
    }
    for _ in 0..100 {
        assert_eq!([&one, &other].map(|web| web.read(1)), [titled("Second"), titled("Second")]);
    }
    // One for each state of the article, unless the machine is so busy that the cluster seems to be away.
    let loads_count = one.loads_count() + other.loads_count();
    assert!(loads_count < 50, "{loads_count} of some 200 reads came to the database");
    assert_eq!(other.remove(1), 204);
    assert_eq!(other.read(1), (404, None));
    wait_until("it is gone for the other, too", PATIENCE, || one.read(1) == (404, None));
}

#[test]
fn without_the_cluster_the_database_answers() {
    let mut cluster = Cluster::of(3);
    let web = Web::start(&cluster, "web");
    assert_eq!(web.write(1, "First"), 204);
    assert_eq!(web.read(1), titled("First"));
    (0..3).for_each(|node| cluster.kill(node));
    assert_eq!(web.write(1, "Second"), 503, "it is written, and nobody could be told");
    assert_eq!(web.read(1), titled("Second"));
    assert_eq!(web.read(2), (404, None));
    (0..3).for_each(|node| cluster.start(node));
    cluster.wait_ready();
    wait_until("all is as before", PATIENCE, || web.write(1, "Third") == 204);
    assert_eq!(web.read(1), titled("Third"));
}
