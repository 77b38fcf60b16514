//! The binary `palmgate`.

fn main() -> std::process::ExitCode {
    palmgate_cli::main()
}
