//! Faults of the node, of its disk and of its clients: nothing acknowledged is lost, and whoever behaves goes on.

mod apache;
mod bombs;
mod clients;
mod disk;
mod kill;
mod network;
mod scene;
