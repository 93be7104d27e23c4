//! Generates the services and messages of `malle.v1` with a compiler written in Rust: no protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=malle/v1");
    let files = [
        "malle/v1/types.proto",
        "malle/v1/mail.proto",
        "malle/v1/cluster.proto",
        "malle/v1/peer.proto",
    ];
    let set = protox::Compiler::new(["."])?
        .include_imports(true)
        .open_files(files)?
        .file_descriptor_set();
    tonic_prost_build::configure().bytes(".malle.v1").compile_fds(set)?;
    Ok(())
}
