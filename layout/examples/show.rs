//! Shows what the library sees of this machine: `cargo run -p layout --example show`.
use layout::system::Host;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let layout = layout::capture::capture(&Host)?;
    println!("{}{}", layout::render::tree(&layout), layout.to_json()?);
    println!(
        "{}",
        serde_json::to_string_pretty(&layout::inventory::inventory(&Host)?)?
    );
    Ok(())
}
