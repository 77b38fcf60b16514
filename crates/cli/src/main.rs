//! The binary `palmgate`.

use mimalloc::MiMalloc;

// As in `palmgated`, which `demo` and `bench` run from this program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> std::process::ExitCode {
    palmgate_cli::main()
}
