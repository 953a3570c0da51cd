//! What the manual pages say besides the help: examples, files, what to read next. Tests try every example on the command
//! line's definition.

/// Environment variables.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "LIFEBOAT_PASSPHRASE_FILE",
        "A file with a passphrase or a recovery key that opens encrypted targets, as with --passphrase-file.",
    ),
    (
        "LIFEBOAT_LOG",
        "What is logged to standard error, in place of --verbose and --quiet: error, warn, info, debug or trace, for all \
         or for parts of the program (info,bundle=debug).",
    ),
];

/// Files on the host.
pub const FILES: &[(&str, &str)] = &[
    (
        "/etc/lifeboat/lifeboat.toml",
        "The configuration. It need not exist; every setting is optional.",
    ),
    (
        "/etc/lifeboat/keys",
        "Keys of encrypted targets, for root only. Without them, and without passphrase and recovery key, nobody opens \
         these targets.",
    ),
    (
        "/etc/lifeboat/hooks.d",
        "Executables pre-backup and post-backup, or directories of these names with executables.",
    ),
    (
        "/var/lib/lifeboat",
        "What the host remembers of its runs, and the guests that are still to come back after a restore.",
    ),
    (
        "/usr/share/doc/lifeboat/examples/lifeboat.toml",
        "Every setting, explained, with its default.",
    ),
];

/// The beginning of lifeboat.toml(5).
pub const CONFIGURATION: &[&str] = &[
    "The configuration of `lifeboat` is written in TOML. Every setting is optional, and so is the file. Options on the \
     command line win over it. A setting that does not exist is an error, which names the line.",
    "`lifeboat config example` writes a file with all of the settings below, each commented out; `lifeboat config show` \
     shows those in force.",
];

/// The end of lifeboat.toml(5).
pub const CONFIGURATION_EXAMPLE: &str = "\
targets = [\"/dev/disk/by-id/usb-Example_Stick_0123456789-0:0\", \"/mnt/drive/lifeboat\"]
parity = \"5%\"

[retention]
automatic = \"always\"
keep-daily = 14";

/// What lifeboat(8) and others say besides the help.
pub fn description(page: &str) -> &'static [&'static str] {
    match page {
        "lifeboat" => &[
            "A target is a place that restore points are written to: a USB stick, an image file of one, or a directory on \
             another drive. `lifeboat prepare` makes one. A stick holds a rescue system besides, and boots the machine \
             that lost its disks: it makes partitions, volumes and file systems again as they were, brings the files and \
             the boot loader back, and then the guests.",
            "A restore point is one host at one time: its storage layout and its files. `lifeboat backup` makes one on all \
             targets; what has not changed since the last one is neither read nor stored again. All of them are equal: any \
             may be removed without harm to the others.",
            "Commands that read targets take them from the configuration, unless --from names others.",
        ],
        "lifeboat-backup" => &[
            "What was written is read again, past the page cache, before a restore point is called good. A run that is \
             stopped, or whose target is pulled, leaves all earlier restore points as they were.",
        ],
        "lifeboat-prepare" => &[
            "A disk is erased only after its serial was typed, or given with --yes-erase. A disk that is in use is refused.",
        ],
        "lifeboat-verify" => {
            &["Damage is named with the files it affects, and the exit status is 1."]
        }
        "lifeboat-arm" => &[
            "The stick then restores at its next boot without anybody at the console, once: the token is used up before \
             the first write.",
        ],
        _ => &[],
    }
}

/// Commands and what they do.
pub fn examples(page: &str) -> &'static [(&'static str, &'static str)] {
    match page {
        "lifeboat" => &[
            (
                "lifeboat prepare /dev/sdX",
                "Makes a stick that boots. It asks for the serial of the stick, then erases it.",
            ),
            (
                "lifeboat backup --to /dev/sdX",
                "Makes a restore point on it, and reads it again.",
            ),
            (
                "lifeboat plan latest --from /dev/sdX",
                "Shows what a restore onto the disks at hand would do, and touches none of them.",
            ),
        ],
        "lifeboat-prepare" => &[
            (
                "lifeboat prepare /mnt/drive/lifeboat-store",
                "Makes a directory on a secondary drive a target.",
            ),
            (
                "lifeboat prepare --encrypt /dev/sdX",
                "Makes a stick that nobody reads without a key, and shows a recovery key for paper.",
            ),
            (
                "lifeboat prepare stick.img --size 32G",
                "Makes an image of a stick, to write to one later or to boot in a virtual machine.",
            ),
        ],
        "lifeboat-backup" => &[
            (
                "lifeboat backup --dry-run",
                "Shows what would be saved, and what is left out, with sizes.",
            ),
            (
                "lifeboat backup --to /dev/sdX --to /mnt/drive/lifeboat-store",
                "Makes a restore point on two targets, with one read of the host.",
            ),
            (
                "lifeboat backup --only-guests --guests 100 --guests tag:daily",
                "Dumps one guest of a Proxmox VE node, and all with a tag.",
            ),
        ],
        "lifeboat-list" => &[("lifeboat list", "Lists what is on all configured targets.")],
        "lifeboat-show" => &[(
            "lifeboat show latest --files /etc",
            "Lists the files below /etc of the newest restore point.",
        )],
        "lifeboat-ls" => &[("lifeboat ls latest /etc/network", "As ls -l.")],
        "lifeboat-diff" => &[(
            "lifeboat diff 1a2b3c4d latest /etc",
            "What was added, removed or changed below /etc since the restore point 1a2b3c4d.",
        )],
        "lifeboat-find" => &[
            (
                "lifeboat find interfaces",
                "In which restore points a file of this name is, in which versions.",
            ),
            (
                "lifeboat find '/etc/**/*.conf'",
                "The same of all that match; quotes keep the pattern from the shell.",
            ),
        ],
        "lifeboat-extract" => &[
            ("lifeboat extract latest /etc --to /tmp", "Gives /tmp/etc."),
            (
                "lifeboat extract latest --tar root.tar",
                "Gives a tar archive of all files.",
            ),
        ],
        "lifeboat-mount" => &[(
            "lifeboat mount all /mnt",
            "A directory per restore point, until umount /mnt or Ctrl-C.",
        )],
        "lifeboat-verify" => &[
            (
                "lifeboat verify --sample 10%",
                "Reads the next tenth of all targets: ten runs read everything.",
            ),
            (
                "lifeboat verify --heal",
                "Repairs targets from each other, and from parity.",
            ),
        ],
        "lifeboat-prune" => &[(
            "lifeboat prune --dry-run --keep-daily 7 --keep-weekly 4",
            "Shows which restore points such a policy keeps and why, and which would go.",
        )],
        "lifeboat-layout" => &[(
            "lifeboat layout --record host.json",
            "Writes what kernel and tools say of this host's storage, without names and serials, for a report.",
        )],
        "lifeboat-plan" => &[
            (
                "lifeboat plan latest --mode system-only",
                "The plan of a restore that leaves guests and data disks as they are.",
            ),
            (
                "lifeboat plan latest --disk S4EVNX0=/dev/sdb",
                "The same for the saved disk with this serial on /dev/sdb.",
            ),
        ],
        "lifeboat-inventory" => &[(
            "lifeboat inventory --json",
            "For lifeboat plan --inventory, on another machine.",
        )],
        "lifeboat-arm" => &[(
            "lifeboat arm --on /dev/sdX --expires 7d",
            "Lets the next boot of this stick restore the newest restore point onto the disks it was saved from.",
        )],
        "lifeboat-disarm" => &[("lifeboat disarm --on /dev/sdX", "Takes that back.")],
        "lifeboat-guests" => &[
            ("lifeboat guests list", "The dumps of all guests."),
            (
                "lifeboat guests status",
                "Who is back after a bare-metal restore, and who is not.",
            ),
        ],
        "lifeboat-guests-restore" => &[
            (
                "lifeboat guests restore 100 --as 900",
                "Brings guest 100 back beside the one that is there.",
            ),
            (
                "lifeboat guests restore 100 --force --start",
                "Replaces the one that is there, after the dump was read as a whole.",
            ),
        ],
        "lifeboat-guests-export" => &[(
            "lifeboat guests export 100 --disk scsi0 --to disk.raw",
            "Writes one disk, with holes for zeroes.",
        )],
        "lifeboat-key" => &[
            ("lifeboat key list --on /dev/sdX", "What opens this target."),
            (
                "lifeboat key keep --on /dev/sdX",
                "Keeps the key here, so that scheduled backups do not ask: on a freshly installed host.",
            ),
        ],
        "lifeboat-key-add" => &[(
            "lifeboat key add --on /dev/sdX --recovery",
            "Adds a recovery key, which is shown once.",
        )],
        "lifeboat-schedule" => &[
            (
                "lifeboat schedule apply",
                "Makes the timers what the table [schedule] of the configuration says.",
            ),
            ("lifeboat schedule show", "When what runs next."),
        ],
        "lifeboat-audit" => &[
            (
                "lifeboat audit show --since 7d",
                "Who did what in the last week.",
            ),
            ("lifeboat audit verify", "Proves that no entry was changed."),
        ],
        "lifeboat-doctor" => &[(
            "lifeboat doctor",
            "What is missing or risky, each with the command that mends it.",
        )],
        "lifeboat-setup" => &[
            (
                "lifeboat setup",
                "Asks, shows what it will do, and does it.",
            ),
            (
                "lifeboat setup --answers answers.toml --dry-run",
                "Shows what these answers would lead to.",
            ),
        ],
        "lifeboat-config" => &[(
            "lifeboat config example >/etc/lifeboat/lifeboat.toml",
            "A configuration to begin with, in which everything is commented out.",
        )],
        _ => &[],
    }
}

/// Pages to read next.
pub fn related(page: &str) -> &'static [&'static str] {
    match page {
        "lifeboat-prepare" => &["lifeboat-backup", "lifeboat-key"],
        "lifeboat-setup" => &["lifeboat-prepare", "lifeboat-schedule", "lifeboat-doctor"],
        "lifeboat-backup" => &["lifeboat-prepare", "lifeboat-verify", "lifeboat-prune"],
        "lifeboat-list" | "lifeboat-show" => &["lifeboat-ls", "lifeboat-find"],
        "lifeboat-ls" | "lifeboat-find" | "lifeboat-mount" | "lifeboat-diff" => {
            &["lifeboat-list", "lifeboat-extract"]
        }
        "lifeboat-extract" => &["lifeboat-ls", "lifeboat-find", "lifeboat-mount"],
        "lifeboat-plan" | "lifeboat-layout" => &["lifeboat-inventory", "lifeboat-arm"],
        "lifeboat-inventory" => &["lifeboat-plan"],
        "lifeboat-arm" => &["lifeboat-disarm", "lifeboat-plan"],
        "lifeboat-disarm" => &["lifeboat-arm"],
        "lifeboat-schedule" | "lifeboat-plug" => &["lifeboat-backup", "lifeboat-verify"],
        _ => &[],
    }
}
