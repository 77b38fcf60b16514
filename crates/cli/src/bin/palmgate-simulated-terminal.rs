//! The binary `palmgate-simulated-terminal`: a terminal without hardware.

fn main() -> std::process::ExitCode {
    palmgate_cli::terminal_main()
}
