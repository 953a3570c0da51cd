//! Writing block images.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};

use crate::content::{self, Piece};
use crate::document::Image;
use crate::events::Events;
use crate::read::Readers;
use crate::store::Store;
use crate::{Error, Result};

/// Zeroes that are written at once where the device cannot be told to.
const STEP: usize = 1 << 20;
/// `_IO(0x12, 127)` of `linux/fs.h`: afterwards the range reads as zeroes, however the device does it.
const BLKZEROOUT: libc::Ioctl = 0x127f;

pub(super) fn image_to(
    stores: &[&Store],
    image: &Image,
    out: &File,
    events: &dyn Events,
) -> Result<()> {
    let name = format!("the output of image {}", image.node);
    let kind = out
        .metadata()
        .map_err(Error::io("examine", &name))?
        .file_type();
    let device = kind.is_block_device();
    if device {
        let mut file = out;
        let size = file
            .seek(SeekFrom::End(0))
            .map_err(Error::io("find the size of", &name))?;
        if size < image.size {
            let reason = format!(
                "it has {size} bytes, {} fewer than the image",
                image.size - size
            );
            return Err(Error::malformed(name, reason));
        }
    } else {
        // What was in the file would show through the holes.
        out.set_len(0)
            .and_then(|()| out.set_len(image.size))
            .map_err(Error::io("set the size of", &name))?;
    }
    events.phase(&format!("image of {}", image.node), Some(image.size));
    let mut pieces = Vec::new();
    let mut readers = Readers::new(stores);
    content::read(
        &mut readers,
        &image.content,
        image.size,
        &mut |_| (),
        &mut |offset, piece| {
            pieces.push((offset, piece));
            Ok(())
        },
    )?;
    let mut buffer = Vec::new();
    let mut first_error = None;
    for (offset, piece) in pieces {
        if events.cancelled() {
            return Err(Error::Cancelled);
        }
        match piece {
            Piece::Blob { id, size } => match readers.blob_into(&id, &mut buffer) {
                Ok(()) if buffer.len() as u64 == size => {
                    out.write_all_at(&buffer, offset)
                        .map_err(Error::io("write", &name))?;
                }
                read => {
                    let reason = match read {
                        Err(error) => error.to_string(),
                        Ok(()) => "it is not as long as its content list says".to_string(),
                    };
                    let reason = format!("bytes {offset} to {}: {reason}", offset + size);
                    events.warn(&format!("image of {}: {reason}", image.node));
                    first_error.get_or_insert(Error::malformed(
                        format!("the image of {}", image.node),
                        reason,
                    ));
                    if device {
                        zero(out, offset, size).map_err(Error::io("write", &name))?;
                    }
                }
            },
            Piece::Hole(size) if device => {
                zero(out, offset, size).map_err(Error::io("write", &name))?
            }
            Piece::Hole(_) | Piece::List { .. } => {}
        }
        events.bytes(piece.size());
    }
    out.sync_all().map_err(Error::io("sync", &name))?;
    first_error.map_or(Ok(()), Err)
}

/// Makes a range of a device read as zeroes.
fn zero(device: &File, offset: u64, size: u64) -> std::io::Result<()> {
    let range = [offset, size];
    // SAFETY: an open descriptor, and the two numbers that the call reads.
    if unsafe { libc::ioctl(device.as_raw_fd(), BLKZEROOUT, range.as_ptr()) } == 0 {
        return Ok(());
    }
    let zeroes = vec![0; STEP];
    let mut done = 0;
    while done < size {
        let step = (size - done).min(STEP as u64);
        device.write_all_at(&zeroes[..step as usize], offset + done)?;
        done += step;
    }
    Ok(())
}
