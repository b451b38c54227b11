//! Who sets a container up and acts on it.
//!
//! [`runner`] for WebAssembly, [`runc`] for everything else; [`compile`] is what a runner needs before
//! it can start. All of them are programs: the shim links no engine and no container library.

pub mod compile;
pub mod compile_cgroup;
mod compile_queue;
pub mod program;
pub mod runc;
pub mod runner;
