//! What an ELF program or library needs to be loaded (elf(5), ld.so(8)), read without running anything.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What an ELF file says about its loading.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The loader (PT_INTERP); libraries have none.
    pub interpreter: Option<PathBuf>,
    /// DT_NEEDED.
    pub libraries: Vec<String>,
    /// DT_RUNPATH, or DT_RPATH where there is none, `$ORIGIN` not yet replaced.
    pub search: Vec<String>,
    /// Libraries opened at run time, from the `.note.dlopen` of the UAPI group's "ELF dlopen metadata": systemd since
    /// 256 and kmod since 34 load most of their libraries this way.
    pub opened: Vec<String>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
/// Note type of the dlopen metadata, owner "FDO".
const NOTE_DLOPEN: u32 = 0x407c_0c0a;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.0
            .get(start..start.checked_add(usize::try_from(len).ok()?)?)
    }
    fn u16(&self, offset: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(offset, 2)?.try_into().ok()?))
    }
    fn u32(&self, offset: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(offset, 4)?.try_into().ok()?))
    }
    fn u64(&self, offset: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(offset, 8)?.try_into().ok()?))
    }
    /// A field of a record: damaged files have records at any address.
    fn u64_at(&self, record: u64, field: u64) -> Option<u64> {
        self.u64(record.checked_add(field)?)
    }
    fn text(&self, offset: u64) -> Option<String> {
        let rest = self.0.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().position(|b| *b == 0)?;
        String::from_utf8(rest[..end].to_vec()).ok()
    }
}

/// Whether this is an ELF file at all.
pub(crate) fn is_elf(content: &[u8]) -> bool {
    content.starts_with(b"\x7fELF")
}

/// Reads the needs of a 64-bit little-endian ELF file; `None` when it is damaged or of another kind.
pub(crate) fn needs(content: &[u8]) -> Option<Needs> {
    // EI_CLASS 2: 64 bit; EI_DATA 1: little endian.
    if !is_elf(content) || content.get(4..6)? != [2, 1] {
        return None;
    }
    let elf = Reader(content);
    let (table, size, count) = (
        elf.u64(0x20)?,
        u64::from(elf.u16(0x36)?),
        u64::from(elf.u16(0x38)?),
    );
    let mut loads = Vec::new();
    let mut dynamic = None;
    let mut found = Needs::default();
    for i in 0..count {
        let at = table.checked_add(i.checked_mul(size)?)?;
        let (offset, address, length) =
            (elf.u64_at(at, 8)?, elf.u64_at(at, 16)?, elf.u64_at(at, 32)?);
        match elf.u32(at)? {
            PT_LOAD => loads.push((address, offset, length)),
            PT_DYNAMIC => dynamic = Some((offset, length)),
            PT_INTERP => found.interpreter = Some(elf.text(offset)?.into()),
            PT_NOTE => dlopen_notes(elf.bytes(offset, length)?, &mut found.opened),
            _ => {}
        }
    }
    let Some((offset, length)) = dynamic else {
        return Some(found);
    };
    let mut entries = Vec::new();
    for i in 0..length / 16 {
        let at = offset.checked_add(i.checked_mul(16)?)?;
        let (tag, value) = (elf.u64(at)?, elf.u64_at(at, 8)?);
        if tag == 0 {
            break;
        }
        entries.push((tag, value));
    }
    let strings = entries.iter().find(|e| e.0 == DT_STRTAB)?.1;
    let (address, offset, _) = *loads
        .iter()
        .find(|(address, _, length)| strings >= *address && strings - address < *length)?;
    let strings = (strings - address).checked_add(offset)?;
    let text = |value: u64| elf.text(strings.checked_add(value)?);
    for (_, value) in entries.iter().filter(|e| e.0 == DT_NEEDED) {
        found.libraries.push(text(*value)?);
    }
    let path = entries
        .iter()
        .find(|e| e.0 == DT_RUNPATH)
        .or_else(|| entries.iter().find(|e| e.0 == DT_RPATH));
    if let Some((_, value)) = path {
        found.search = text(*value)?
            .split(':')
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect();
    }
    Some(found)
}

#[derive(serde::Deserialize)]
struct Dlopen {
    #[serde(default)]
    soname: Vec<String>,
    #[serde(default)]
    priority: String,
}

pub(crate) fn dlopen_notes(mut notes: &[u8], opened: &mut Vec<String>) {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let padded = |n: u32| (n as usize).next_multiple_of(4);
    while let (Some(name), Some(size), Some(kind)) =
        (word(notes, 0), word(notes, 4), word(notes, 8))
    {
        let start = 12 + padded(name);
        let Some(content) = notes.get(start..start + size as usize) else {
            return;
        };
        if kind == NOTE_DLOPEN && notes.get(12..16) == Some(b"FDO\0") {
            let json = content.strip_suffix(b"\0").unwrap_or(content);
            // A note that we cannot read costs a feature of that program, not its start.
            let list: Vec<Dlopen> = serde_json::from_slice(json).unwrap_or_default();
            opened.extend(
                list.into_iter()
                    .filter(|d| d.priority != "suggested")
                    .flat_map(|d| d.soname),
            );
        }
        match notes.get(start + padded(size)..) {
            Some(rest) => notes = rest,
            None => return,
        }
    }
}

/// Finds libraries the way ld.so does: the file's own search path, then the system's folders.
#[derive(Debug)]
pub(crate) struct Libraries {
    folders: Vec<PathBuf>,
}

impl Libraries {
    /// The folders of this host: `/etc/ld.so.conf` and its parts, then the built-in ones.
    pub(crate) fn of_host() -> Self {
        let mut folders = Vec::new();
        read_conf(Path::new("/etc/ld.so.conf"), &mut folders, 0);
        for folder in [
            "/lib/x86_64-linux-gnu",
            "/usr/lib/x86_64-linux-gnu",
            "/lib64",
            "/usr/lib64",
            "/lib",
            "/usr/lib",
        ] {
            folders.push(folder.into());
        }
        let mut seen = BTreeSet::new();
        folders.retain(|f| f.is_dir() && seen.insert(f.clone()));
        Self { folders }
    }

    /// Where the library is that `user` asks for.
    pub(crate) fn find(&self, library: &str, user: &Path, search: &[String]) -> Option<PathBuf> {
        if library.contains('/') {
            let path = PathBuf::from(library);
            return path.exists().then_some(path);
        }
        let origin = user
            .parent()
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        let own = search
            .iter()
            .map(|s| PathBuf::from(s.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin)));
        own.chain(self.folders.iter().cloned())
            .map(|f| f.join(library))
            .find(|p| p.is_file())
    }

    /// A library that some programs open at run time; `None` where this host has none.
    pub(crate) fn find_optional(&self, library: &str) -> Option<PathBuf> {
        self.folders
            .iter()
            .map(|f| f.join(library))
            .find(|p| p.is_file())
    }
}

fn read_conf(path: &Path, folders: &mut Vec<PathBuf>, depth: u8) {
    // ld.so.conf may include files; a loop of includes must not hang us.
    if depth > 4 {
        return;
    }
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include ") {
            // Only the form that Debian uses: every .conf of a folder.
            if let Some(folder) = pattern.trim().strip_suffix("/*.conf") {
                let mut parts: Vec<_> = fs::read_dir(folder)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path())
                    .collect();
                parts.sort();
                for part in parts
                    .iter()
                    .filter(|p| p.extension().is_some_and(|e| e == "conf"))
                {
                    read_conf(part, folders, depth + 1);
                }
            }
        } else if line.starts_with('/') {
            folders.push(line.into());
        }
    }
}

/// All libraries that `file` needs, directly or through others, with the loader; paths as found (not canonical). Those
/// in `seen` are known with all that they need, and are left out; the new ones are added to it.
pub(crate) fn closure(
    libraries: &Libraries,
    file: &Path,
    seen: &mut BTreeSet<PathBuf>,
) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![file.to_owned()];
    while let Some(path) = todo.pop() {
        let content = fs::read(&path).map_err(Error::io("read", &path))?;
        if !is_elf(&content) {
            continue;
        }
        let needs = needs(&content).ok_or_else(|| {
            Error::format(
                &path,
                "not a 64-bit x86 program, or damaged; reinstall its package",
            )
        })?;
        let mut add = |library: PathBuf, todo: &mut Vec<PathBuf>| {
            if seen.insert(library.clone()) {
                found.push(library.clone());
                todo.push(library);
            }
        };
        for library in &needs.libraries {
            match libraries.find(library, &path, &needs.search) {
                Some(library) => add(library, &mut todo),
                None => {
                    return Err(Error::MissingLibrary {
                        program: path,
                        library: library.clone(),
                    });
                }
            }
        }
        for library in &needs.opened {
            if let Some(library) = libraries.find(library, &path, &needs.search) {
                add(library, &mut todo);
            }
        }
        if let Some(loader) = needs.interpreter {
            add(loader, &mut todo);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_real_program_needs() {
        let all = closure(
            &Libraries::of_host(),
            Path::new("/bin/bash"),
            &mut BTreeSet::new(),
        )
        .unwrap();
        let names: Vec<_> = all
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap())
            .collect();
        for name in ["libc.so.6", "libtinfo.so.6", "ld-linux-x86-64.so.2"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
    }

    #[test]
    fn follows_the_search_path_of_the_file_itself() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("app/bin")).unwrap();
        fs::write(dir.path().join("app/private.so"), b"").unwrap();
        let program = dir.path().join("app/bin/program");
        let libraries = Libraries::of_host();
        assert_eq!(libraries.find("private.so", &program, &[]), None);
        let found = libraries
            .find("private.so", &program, &["$ORIGIN/..".into()])
            .unwrap();
        assert_eq!(
            fs::canonicalize(found).unwrap(),
            fs::canonicalize(dir.path().join("app/private.so")).unwrap()
        );
    }

    #[test]
    fn a_missing_library_names_the_program_and_the_library() {
        let nowhere = Libraries { folders: vec![] };
        let text = closure(&nowhere, Path::new("/bin/bash"), &mut BTreeSet::new())
            .unwrap_err()
            .to_string();
        assert!(text.contains("/bin/bash") && text.contains(".so"), "{text}");
    }

    #[test]
    fn damaged_files_are_no_panic() {
        let good = fs::read("/bin/true").unwrap();
        for cut in [4, 6, 60, 64, 100, 500, 1000, good.len() / 2] {
            let _ = needs(&good[..cut]);
        }
        let mut bad = good.clone();
        for at in 0x20..0x40 {
            bad[at] = 0xff;
            let _ = needs(&bad);
        }
        assert_eq!(needs(b"#!/bin/sh"), None);
    }

    #[test]
    fn reads_the_notes_about_libraries_opened_at_run_time() {
        let json = br#"[{"soname":["libkmod.so.2"],"priority":"recommended"},{"soname":["libx.so"],"priority":"suggested"}]"#;
        let mut note = Vec::new();
        note.extend_from_slice(&4u32.to_le_bytes());
        note.extend_from_slice(&(json.len() as u32).to_le_bytes());
        note.extend_from_slice(&NOTE_DLOPEN.to_le_bytes());
        note.extend_from_slice(b"FDO\0");
        note.extend_from_slice(json);
        note.resize(note.len().next_multiple_of(4), 0);
        let mut opened = Vec::new();
        dlopen_notes(&note, &mut opened);
        assert_eq!(opened, ["libkmod.so.2"]);
    }
}
