//! What one connection may cost.

use scatterhoard_cluster::{Network, SystemNet};

use super::stage::tests::node;
use super::*;

#[tokio::test]
async fn a_request_that_nobody_has_room_for_is_refused() {
    let node = node().await;
    let mut all = Share::new(&node.core.clients.buffers);
    all.cover(buffer::FREE_BYTES + buffer::SHARED_BYTES_MAX).unwrap();

    let mut stream = SystemNet.connect(node.addresses().endpoints().listen).await.unwrap();
    stream.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\n").await.unwrap();
    stream.write_all(&vec![b'v'; 1_000_000]).await.unwrap();
    let mut answered = Vec::new();
    stream.read_to_end(&mut answered).await.unwrap();
    let answered = String::from_utf8(answered).unwrap();
    let expected =
        "-ERR clients' requests and replies take too much memory on this node, try again later";
    assert_eq!(answered.trim_end(), expected);

    drop(all);
    let mut stream = SystemNet.connect(node.addresses().endpoints().listen).await.unwrap();
    let set = stage::tests::request(&[b"SET", b"k", &vec![b'v'; 2_000_000]]);
    stream.write_all(&set).await.unwrap();
    let mut answered = [0; 5];
    stream.read_exact(&mut answered).await.unwrap();
    assert_eq!(&answered, b"+OK\r\n");
    node.shutdown().await;
}
