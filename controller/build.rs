//! Turns `control.proto` into code. protox reads it: nobody needs a `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/transport/control.proto");
    let files = protox::compile(["src/transport/control.proto"], ["src/transport"])?;
    tonic_prost_build::configure().bytes(".firn.control").build_transport(false).compile_fds(files)?;
    Ok(())
}
