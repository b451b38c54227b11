//! Each statement about [`super::insert`] and [`super::remove`], on texts of every form.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn ours(names: &[&str]) -> BTreeMap<String, HandlerConfig> {
    names
        .iter()
        .map(|name| {
            let handler = HandlerConfig {
                runtime_type: "io.containerd.wasm.v1".to_owned(),
                runtime_path: "/opt/wasmlet/runtimes/wasm/bin/containerd-shim-wasm-v1".to_owned(),
                pod_annotations: vec!["wasmlet.dev/*".to_owned()],
                container_annotations: vec!["wasmlet.dev/*".to_owned()],
                config_path: format!("/etc/wasmlet/{name}.toml"),
                table: toml::Table::new(),
            };
            ((*name).to_owned(), handler)
        })
        .collect()
}

fn wanted(plugin: PluginId) -> Wanted {
    Wanted {
        plugin,
        handlers: ours(&["wasm", "wasm-wasmtime"]),
        carried: Carried::new(),
        declare_version: None,
    }
}

const V2: &str = r#"# The administrator's file.
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = 'registry.example/pause:3.9' # pinned
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true

[timeouts]
  "io.containerd.timeout.shim.load" = "5s"
"#;

/// Texts of every form, all of version 2.
fn forms() -> Vec<(&'static str, String)> {
    vec![
        ("usual", V2.to_owned()),
        ("without a last newline", V2.trim_end().to_owned()),
        ("CRLF", V2.replace('\n', "\r\n")),
        ("CRLF without a last newline", V2.trim_end().replace('\n', "\r\n")),
        ("with a byte order mark", format!("\u{feff}{V2}")),
        ("a comment at the end", format!("{V2}# the end")),
        ("no plugins", "version = 2\n".to_owned()),
        ("empty lines at the end", format!("{V2}\n\n\n")),
        (
            "dotted keys",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\ncontainerd.runtimes.runc.runtime_type = \"r\"\n".to_owned(),
        ),
        (
            "dotted keys at the root",
            "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".sandbox_image = \"p\"\n".to_owned(),
        ),
    ]
}

#[test]
fn what_is_put_in_comes_out_again_byte_for_byte() {
    for (form, text) in forms() {
        let after = insert(&text, &wanted(PluginId::V2)).unwrap();
        assert!(after.contains("runtimes.wasm-wasmtime"), "{form}");
        assert_eq!(remove(&after).unwrap(), text, "{form}");
        assert_eq!(
            inspect(&after)
                .unwrap()
                .handlers
                .keys()
                .filter(|name| name.starts_with("wasm"))
                .count(),
            2,
            "{form}"
        );
    }
}

#[test]
fn everything_else_stays_where_it_was_byte_for_byte() {
    for (form, text) in forms() {
        let after = insert(&text, &wanted(PluginId::V2)).unwrap();
        assert!(after.starts_with(&text), "{form}: {after}");
    }
}

#[test]
fn putting_in_twice_is_putting_in_once() {
    for (form, text) in forms() {
        let once = insert(&text, &wanted(PluginId::V2)).unwrap();
        assert_eq!(
            insert(&once, &wanted(PluginId::V2)).unwrap(),
            once,
            "{form}"
        );
    }
}

#[test]
fn no_line_of_a_file_with_crlf_ends_otherwise() {
    let text = V2.replace('\n', "\r\n");
    let after = insert(&text, &wanted(PluginId::V2)).unwrap();
    assert_eq!(after.matches('\n').count(), after.matches("\r\n").count());
}

#[test]
fn what_somebody_appended_since_stays() {
    for (form, text) in forms() {
        let after = insert(&text, &wanted(PluginId::V2)).unwrap();
        let edited = format!("{after}[stream_processors.mine]\nargs = []\n");
        let removed = remove(&edited).unwrap();
        assert!(
            removed.ends_with("[stream_processors.mine]\nargs = []\n"),
            "{form}"
        );
        let tree = inspect(&removed).unwrap().tree;
        let mut expected = inspect(&text).unwrap().tree;
        expected.insert(
            "stream_processors".to_owned(),
            inspect("[mine]\nargs = []").unwrap().tree.into(),
        );
        assert_eq!(tree, expected, "{form}");
    }
}

#[test]
fn a_table_that_somebody_put_between_our_markers_stays() {
    let after = insert(V2, &wanted(PluginId::V2)).unwrap();
    let foreign = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]\nruntime_type = \"n\"\n";
    let edited = after.replace(
        "# wasmlet-node: end",
        &format!("{foreign}# wasmlet-node: end"),
    );
    let removed = inspect(&remove(&edited).unwrap()).unwrap();
    assert_eq!(
        removed.handlers.keys().collect::<Vec<_>>(),
        ["nvidia", "runc"]
    );
}

#[test]
fn a_file_that_lost_its_comments_loses_our_tables_all_the_same() {
    let after = insert(V2, &wanted(PluginId::V2)).unwrap();
    let bare: String = after
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    let removed = inspect(&remove(&bare).unwrap()).unwrap();
    assert_eq!(removed.tree, inspect(V2).unwrap().tree);
}

#[test]
fn half_a_block_is_an_error_with_its_line() {
    let after = insert("version = 2\n", &wanted(PluginId::V2)).unwrap();
    let torn = after.replace("# wasmlet-node: end\n", "");
    assert_eq!(
        remove(&torn).unwrap_err().to_string(),
        "line 2 is a marker of wasmlet-node without its other half: remove the lines that wasmlet-node wrote there, with both markers"
    );
}

#[test]
fn inline_tables_are_added_to() {
    for text in [
        "version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { containerd = { runtimes = { runc = { runtime_type = \"r\" } } } } } # x\n",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"p\" # y\ncontainerd = { snapshotter = \"s\" }\n[debug]\nlevel = \"info\"\n",
        "version = 2\r\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\r\nruntimes = { runc = { runtime_type = \"r\" } }\r\n",
    ] {
        let after = insert(text, &wanted(PluginId::V2)).unwrap();
        let document = inspect(&after).unwrap();
        assert!(
            document.handlers.values().filter(|h| is_ours(h)).count() == 2,
            "{after}"
        );
        assert_eq!(insert(&after, &wanted(PluginId::V2)).unwrap(), after);
        let removed = remove(&after).unwrap();
        let left = compare::others(&inspect(&removed).unwrap().tree, &[]);
        let before = compare::others(&inspect(text).unwrap().tree, &[]);
        assert_eq!(left, before, "{removed}");
        assert_eq!(after.contains('\r'), text.contains('\r'));
        // The comments are still there.
        assert_eq!(after.matches('#').count(), text.matches('#').count());
    }
}

#[test]
fn a_handler_of_somebody_else_is_left_alone() {
    let text = format!(
        "{V2}[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.wasm]\nruntime_type = \"x\"\n"
    );
    let error = insert(&text, &wanted(PluginId::V2)).unwrap_err();
    assert!(
        matches!(&error, ConfigError::Taken(name) if name == "wasm"),
        "{error}"
    );
    let by_hand = format!(
        "{V2}# wasmlet: begin\n{}# wasmlet: end\n",
        &text[V2.len()..]
    );
    let error = insert(&by_hand, &wanted(PluginId::V2)).unwrap_err();
    assert!(matches!(&error, ConfigError::TakenByHand(_)), "{error}");
}

#[test]
fn what_is_not_toml_is_refused_with_the_place() {
    let error = insert("version = 2\n[plugins\n", &wanted(PluginId::V2)).unwrap_err();
    let text = crate::errors::Chain(&error).to_string();
    assert!(text.contains("line 2") && !text.contains("\n"), "{text}");
}

#[test]
fn runtimes_that_are_no_table_are_refused() {
    let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nruntimes = 1\n";
    let error = insert(text, &wanted(PluginId::V2)).unwrap_err();
    assert!(matches!(error, ConfigError::NoTable(_)), "{error}");
}

#[test]
fn handlers_that_are_carried_go_with_ours() {
    let runc: toml::Table =
        "runtime_type = \"io.containerd.runc.v2\"\n[options]\nSystemdCgroup = false\n"
            .parse()
            .unwrap();
    let with = Wanted {
        carried: Carried::from([("runc".to_owned(), runc.clone())]),
        ..wanted(PluginId::V2)
    };
    let text = "version = 2\n[debug]\nlevel = \"info\"";
    let after = insert(text, &with).unwrap();
    assert_eq!(inspect(&after).unwrap().handlers["runc"].table, runc);
    assert_eq!(insert(&after, &with).unwrap(), after);
    assert_eq!(remove(&after).unwrap(), text);
}

#[test]
fn a_file_without_a_version_gets_one_and_loses_it_again() {
    for text in [
        "",
        "# nothing\n",
        "[debug]\nlevel = \"info\"",
        "\u{feff}[debug]\r\nlevel = \"info\"\r\n",
    ] {
        let with = Wanted {
            declare_version: Some(2),
            ..wanted(PluginId::V2)
        };
        let after = insert(text, &with).unwrap();
        assert_eq!(inspect(&after).unwrap().version, Some(2));
        assert_eq!(insert(&after, &with).unwrap(), after);
        assert_eq!(remove(&after).unwrap(), text);
    }
}

#[test]
fn a_drop_in_has_the_roots_version_and_its_plugin_id() {
    for (version, plugin) in [(2, PluginId::V2), (3, PluginId::V3), (4, PluginId::V3)] {
        let document = inspect(&drop_in(version, &wanted(plugin))).unwrap();
        assert_eq!(document.version, Some(version));
        assert_eq!(document.handlers.len(), 2);
        assert!(document.ignored.is_empty());
    }
}

#[test]
fn imports_cover_a_name_only_by_a_pattern_in_a_plain_folder() {
    let covered = |import: &str| {
        covers(
            &[import.to_owned()],
            "/etc/containerd/config.toml".as_ref(),
            "99-wasmlet.toml",
        )
        .map(|(_, path)| path.display().to_string())
    };
    assert_eq!(
        covered("/etc/containerd/conf.d/*.toml").unwrap(),
        "/etc/containerd/conf.d/99-wasmlet.toml"
    );
    assert_eq!(
        covered("conf.d/*").unwrap(),
        "/etc/containerd/conf.d/99-wasmlet.toml"
    );
    assert_eq!(covered("/x/99-*.toml").unwrap(), "/x/99-wasmlet.toml");
    for not in [
        "/etc/containerd/conf.d/99-wasmlet.toml",
        "/etc/containerd/*/*.toml",
        "/etc/containerd/conf.d/[0-9]*.toml",
        "/etc/containerd/conf.d/*.conf",
        "/etc/containerd/conf.d/a*.toml",
    ] {
        assert_eq!(covered(not), None, "{not}");
    }
}

#[test]
fn files_are_read_depth_first_and_loops_end() {
    let file = |text: &str| Some(text.as_bytes().to_vec());
    let files = BTreeMap::from([
        (
            "/c/config.toml".into(),
            file("imports = ['a.toml', 'd/*.toml', 'gone.toml']"),
        ),
        (
            "/c/a.toml".into(),
            file("imports = ['/x/b.toml', 'config.toml']"),
        ),
        ("/x/b.toml".into(), file("")),
        ("/c/d/2.toml".into(), file("")),
        ("/c/d/1.toml".into(), file("")),
        ("/c/d/not.conf".into(), file("")),
        ("/c/gone.toml".into(), None),
    ]);
    let order = merge_order("/c/config.toml".as_ref(), &files);
    let order: Vec<_> = order.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        order,
        [
            "/c/config.toml",
            "/c/a.toml",
            "/x/b.toml",
            "/c/d/1.toml",
            "/c/d/2.toml"
        ]
    );
}

#[test]
fn a_candidate_imports_from_where_it_is_laid_out() {
    let text = "imports = [ '/etc/c/*.toml', # all\n 'near.toml' ]\nversion = 3\n";
    let moved = rewritten(text, "/p".as_ref()).unwrap();
    assert_eq!(
        inspect(&moved).unwrap().imports,
        ["/p/etc/c/*.toml", "near.toml"]
    );
    assert!(moved.contains("# all"));
    assert_eq!(
        rewritten("version = 3\n", "/p".as_ref()).unwrap(),
        "version = 3\n"
    );
}

fn field() -> impl Strategy<Value = String> {
    // What closes a string, a table or a line in TOML, and what only looks like it.
    proptest::collection::vec(
        prop_oneof![
            Just("\"]\n[plugins.x]\na = 1\n".to_owned()),
            Just("'''".to_owned()),
            Just("\\".to_owned()),
            Just("# wasmlet-node: end\n".to_owned()),
            Just("\r\n".to_owned()),
            any::<String>(),
        ],
        0..4,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn whatever_a_field_contains_only_our_tables_differ(
        name in field(), path in field(), annotation in field(), settings in field(),
    ) {
        let handler = HandlerConfig {
            runtime_type: "io.containerd.wasm.v1".to_owned(),
            runtime_path: format!("/opt/wasmlet/runtimes/{path}"),
            pod_annotations: vec![annotation.clone()],
            container_annotations: vec![annotation],
            config_path: settings,
            table: toml::Table::new(),
        };
        let name = format!("w{name}");
        let with = Wanted {
            plugin: PluginId::V2,
            handlers: BTreeMap::from([(name.clone(), handler.clone())]),
            carried: Carried::new(),
            declare_version: None,
        };
        let after = insert(V2, &with).unwrap();
        let document = inspect(&after).unwrap();
        prop_assert!(document.handlers[&name].starts_the_same(&handler));
        prop_assert_eq!(compare::others(&document.tree, &[]), inspect(V2).unwrap().tree);
        prop_assert_eq!(remove(&after).unwrap(), V2);
        prop_assert_eq!(insert(&after, &with).unwrap(), after);
    }

    #[test]
    fn no_text_makes_it_panic_or_lose_something(text in field()) {
        let text = format!("version = 2\n{text}");
        if let Ok(after) = insert(&text, &wanted(PluginId::V2)) {
            let left = remove(&after).unwrap();
            prop_assert_eq!(
                compare::others(&inspect(&left).unwrap().tree, &[]),
                compare::others(&inspect(&text).unwrap().tree, &[])
            );
        }
    }

    #[test]
    fn patterns_agree_with_a_plain_reading(pattern in "[a*?.]{0,6}", name in "[a.b]{0,6}") {
        fn plain(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern.split_first(), name.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), None) => plain(rest, name),
                (Some((b'*', rest)), Some((_, more))) => plain(rest, name) || plain(pattern, more),
                (Some((b'?', rest)), Some((_, more))) => plain(rest, more),
                (Some((a, rest)), Some((b, more))) => a == b && plain(rest, more),
                _ => false,
            }
        }
        prop_assert_eq!(matches(&pattern, &name), plain(pattern.as_bytes(), name.as_bytes()));
    }
}
