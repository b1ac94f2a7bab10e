// SPDX-License-Identifier: Apache-2.0
//! A C++ program that Cargo builds: all of it is in inspect.cc, this is only
//! where the operating system begins. `cargo run -p safetensors-cxx --example inspect -- PATH`

use safetensors_cxx as _;

#[allow(unreachable_pub, reason = "cxx makes what it declares public")]
#[cxx::bridge(namespace = "inspect")]
mod program {
    unsafe extern "C++" {
        include!("safetensors-cxx/examples/inspect.h");

        fn run(arguments: Vec<String>) -> i32;
    }
}

fn main() {
    std::process::exit(program::run(std::env::args().skip(1).collect()));
}
