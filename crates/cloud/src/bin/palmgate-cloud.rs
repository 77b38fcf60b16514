//! The binary `palmgate-cloud`.

fn main() -> std::process::ExitCode {
    palmgate_cloud::program::main()
}
