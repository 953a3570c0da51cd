//! `docs/bundle-format.md` is enough to read a store, and to write one: its commands restore a tree, and what a shell
//! writes by it alone is read by the program.
#![allow(clippy::unwrap_used, reason = "tests")]

mod store_support;

use std::fs;
use std::path::Path;

use bundle::extract::Selection;
use store_support::*;

/// The commands of the section "By hand", with other places than `/tmp` and `/mnt`: the check of the packs, the function
/// that prints a blob, and the restoring.
fn commands() -> [String; 3] {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bundle-format.md");
    let document = fs::read_to_string(path).unwrap();
    let (_, section) = document.split_once("\n## By hand\n").unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let blocks: Vec<String> = blocks
        .map(|block| block.split("```").next().unwrap())
        .map(|block| block.replace("/tmp/", "$work/").replace("/mnt", "$out"))
        .collect();
    blocks.try_into().unwrap()
}

/// Runs commands in `lifeboat/`, as the document says.
fn run(store: &Path, work: &Path, out: &Path, script: &str) {
    for dir in [work, out] {
        fs::create_dir_all(dir).unwrap();
    }
    let script = format!(
        "work='{}' out='{}'\n{script}",
        work.display(),
        out.display()
    );
    let said = sh(&store.join("lifeboat"), &script);
    // The check of the packs says what is damaged.
    assert_eq!(String::from_utf8(said).unwrap(), "");
}

/// Puts the file `large` behind lists in lists, in a pack, an index and a document of its own, all of it as the document
/// describes them.
const NEST: &str = r#"
id() { sha256sum <"$work/$1" | cut -c 1-64; }
size() { stat -c %s "$work/$1"; }
document=$(ls snapshots/*.json)
blob "$(jq -r '.trees[0].catalogue[]' "$document")" >"$work/lines"
list=$(jq -r '.entries[] | select(.path == "large").content' "$work/lines")
blob "$list" >"$work/list"
part() { jq -c ".pieces |= .[$1] | .size = ([.pieces[] | .size // .hole] | add)" "$work/list" >"$work/$2"; }
part :2 one
part 2: two
lists() { # NAMES: a list of these lists
    for name; do
        jq -c --arg id "$(id "$name")" '{list: $id, size}' "$work/$name"
    done | jq -sc '{size: (map(.size) | add), pieces: .}'
}
lists two >"$work/middle"
lists one middle >"$work/outer"
blob "$(jq -r .segment "$work/lines")" | sed "s/$list/$(id outer)/" >"$work/segment"
jq -c --arg segment "$(id segment)" --arg list "$(id outer)" \
    '.segment = $segment | (.entries[] | select(.content) | .content) = $list' "$work/lines" >"$work/catalogue"

printf 'LIFEBOAT-PACK 1\n' >"$work/pack"
put() { # NAME KIND CODEC
    case $3 in raw) cat "$work/$1" ;; zstd) zstd -qc "$work/$1" ;; xz) xz -c "$work/$1" ;; esac >"$work/stored"
    jq -nc --arg id "$(id "$1")" --arg kind "$2" --arg codec "$3" --argjson offset "$(size pack)" \
        --argjson stored "$(size stored)" --argjson raw "$(size "$1")" \
        '{id: $id, kind: $kind, codec: $codec, offset: $offset, stored: $stored, raw: $raw}' >>"$work/entries"
    cat "$work/stored" >>"$work/pack"
}
put one content raw
put two content zstd
put middle content xz
put outer content raw
put segment segment xz
put catalogue catalogue zstd
jq -sc '{format: 1, blobs: .}' "$work/entries" | zstd -qc >"$work/footer"
cat "$work/footer" >>"$work/pack"
printf 'LIFEBOAT-FOOTER 1 %010d %s\n' "$(size footer)" "$(id footer)" >>"$work/pack"
pack=$(id pack)
dir=packs/$(echo "$pack" | cut -c 1-2)
mkdir -p "$dir"
mv "$work/pack" "$dir/$pack.pack"
jq -sc --arg id "$pack" --argjson size "$(stat -c %s "$dir/$pack.pack")" \
    '{format: 1, packs: [{id: $id, size: $size, blobs: .}]}' "$work/entries" | zstd -qc >"$work/index"
mv "$work/index" "index/$(id index).idx"
jq --arg id "$(id catalogue)" '.trees[0].catalogue = [$id]' "$document" >"$work/document"
time=$(basename "$document" | cut -d - -f 1)
name=$time-$(id document).json
rm "$document"
mv "$work/document" "snapshots/$name"
"#;

#[test]
fn a_store_written_by_hand_is_read_by_the_program_and_by_hand() {
    let dir = scratch();
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    fs::create_dir(&tree).unwrap();
    sh(
        &tree,
        r#"
        mkdir -p a/b; echo text >a/file; ln a/file a/b/link; ln -s ../file a/b/symlink; : >empty
        head -c 300000 /dev/urandom >large; truncate -s 2M large
        head -c 5000 /dev/urandom >>large; truncate -s 3M large; echo end >>large
        touch -d '2001-02-03 04:05:06.789Z' large a/file a/b a .
        "#,
    );
    backup(&tree, &store);
    let [check_packs, blobs, restore] = commands();
    let (work, out) = (dir.path().join("work"), dir.path().join("out"));
    run(&store, &work, &out, &format!("{blobs}{NEST}"));

    let report = check(&store);
    assert!(report.ok() && report.notes.is_empty(), "{report:#?}");
    let ours = dir.path().join("ours");
    assert!(extract_from(&[&store], &Selection::All, &ours).complete());
    assert_same(&tree, &ours);

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/read-by-hand");
    let theirs = dir.path().join("theirs");
    let output = command(script)
        .args([&store, Path::new("latest"), Path::new("/"), &theirs])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_same(&tree, &theirs);

    fs::remove_dir_all(&work).unwrap();
    run(
        &store,
        &work,
        &out,
        &format!("{check_packs}{blobs}{restore}"),
    );
    // Times of large files are not kept by these few lines, as the document says.
    sh(&out, "touch -d '2001-02-03 04:05:06.789Z' large .");
    assert_same(&tree, &out);
}
