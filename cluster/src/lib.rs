//! Who is there and how to talk to them: gossip, peer connections, the network seam.
