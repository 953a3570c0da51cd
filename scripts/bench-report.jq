# From the rows of scripts/bench to its result: medians, ratios, and the claims they are to carry.
# In: lines "<scene> <phase> <tool> <wall> <user> <system> <peak> <bytes>". Out: JSON, or a table with $text.

def median: sort | if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def round2: . * 100 | round / 100;
def round3: . * 1000 | round / 1000;

[inputs | split(" ") | {scene: .[0], phase: .[1], tool: .[2], wall: .[3] | tonumber,
    cpu: ((.[4] | tonumber) + (.[5] | tonumber)), peak: .[6] | tonumber, bytes: .[7] | tonumber}]
| group_by([.scene, .phase, .tool])
| map({scene: .[0].scene, phase: .[0].phase, tool: .[0].tool, wall_s: map(.wall) | median | round2,
    cpu_s: map(.cpu) | median | round2, peak_kib: map(.peak) | median, bytes: map(.bytes) | median})
| . as $rows
| def of($scene; $phase; $tool): first($rows[] | select(.scene == $scene and .phase == $phase and .tool == $tool));
  # How many times Lifeboat's figure another tool's is.
  def ratio($scene; $phase; $tool; $field): (of($scene; $phase; $tool)[$field] / of($scene; $phase; "lifeboat")[$field]) | round3;
  def claim($text; $value; $wanted; $met): {claim: $text, value: $value, wanted: $wanted, met: $met};
  def faster($phase; $tool; $least):
    ratio("tree"; $phase; $tool; "wall_s") as $r
    | claim("\($phase): times as fast as \($tool)"; $r; "at least \($least)"; $r >= $least);
  [ (("restic", "borg", "fsarchiver", "fsarchiver-3") | faster("first"; .; 1.5)), faster("first"; "tar-zstd"; 1),
    (("restic", "borg") | faster("unchanged"; .; 3)),
    faster("restore"; "tar-zstd"; 1), faster("restore"; "restic"; 1.5),
    ((1 / ratio("tree"; "first"; "restic"; "bytes") | round3) as $r
      | claim("first: size, as a share of restic's"; $r; "at most 1.02"; $r <= 1.02)),
    (([$rows[] | select(.tool == "lifeboat") | .peak_kib] | max) as $p
      | claim("highest peak memory of lifeboat, KiB"; $p; "at most 390625 (400 MB)"; $p <= 390625)),
    (("first", "restore") | . as $phase | ratio("tree"; $phase; "encrypted"; "wall_s") as $r
      | claim("\($phase): encrypted, as a share of plain"; $r; "at most 1.15"; $r <= 1.15)) ] as $claims
| {tree: $tree, tree_bytes: $tree_bytes, files: $files, images: $images, runs: $runs, cold: ($cold == 1),
   versions: ($versions | split("\n") | map(select(. != "") | split("\t") | {(.[0]): .[1]}) | add), rows: $rows, claims: $claims}
| if $text == "" then .
  else
    def pad($n): tostring | . + " " * ([0, $n - length] | max);
    def left($n): tostring | " " * ([0, $n - length] | max) + .;
    ["\($tree): \($files) files, \($tree_bytes / 1e9 | round2) GB; medians of \($runs) round(s); ratio: wall time as a multiple of Lifeboat's"]
    + [$rows | group_by([.scene, .phase])[]
        | "\n\(.[0].scene), \(.[0].phase)\n" + ("" | pad(12)) + (["wall s", "cpu s", "peak MiB", "store MB", "ratio"] | map(left(10)) | join("")),
          (sort_by(.wall_s)[] | (.tool | pad(12))
            + ([.wall_s, .cpu_s, (.peak_kib / 1024 | round), (.bytes / 1e6 | round),
                (.wall_s / ((of(.scene; .phase; "lifeboat") // .).wall_s) | round3)] | map(left(10)) | join("")))]
    + ["\nwhat is claimed"] + [$claims[] | (if .met then "  met     " else "  MISSED  " end) + "\(.claim): \(.value), \(.wanted)"]
    | .[]
  end
