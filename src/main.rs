//! The `eddyline` program: it only chooses the command line as its way in.

fn main() -> std::process::ExitCode {
    eddyline::cli::main()
}
