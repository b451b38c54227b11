//! The declarations in `src/ffi.rs` are those of the library's headers: a C compiler sees both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the headers are, beside the library that was linked.
fn include() -> Option<PathBuf> {
    let home = |name: &str, below: &str| Some(PathBuf::from(std::env::var_os(name)?).join(below));
    [
        home("WASMEDGE_INCLUDE_DIR", ""),
        home("WASMEDGE_DIR", "include"),
        home("WASMLET_CACHE_DIR", "wasmedge/include"),
        home("XDG_CACHE_HOME", "wasmlet/wasmedge/include"),
        home("HOME", ".cache/wasmlet/wasmedge/include"),
    ]
    .into_iter()
    .flatten()
    .find(|folder| folder.join("wasmedge/wasmedge.h").exists())
}

/// A Rust type of a declaration as C writes it.
fn c_type(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(target) = rust.strip_prefix("*const ") {
        return format!("{} const *", c_type(target));
    }
    if let Some(target) = rust.strip_prefix("*mut ") {
        return format!("{} *", c_type(target));
    }
    match rust {
        "c_char" => "char".to_owned(),
        "c_void" => "void".to_owned(),
        "u8" | "u32" | "u64" | "i32" => format!(
            "{}int{}_t",
            if rust.starts_with('u') { "u" } else { "" },
            &rust[1..]
        ),
        "bool" => "_Bool".to_owned(),
        "Proposal" => "enum WasmEdge_Proposal".to_owned(),
        "WeString" => "WasmEdge_String".to_owned(),
        "WeResult" => "WasmEdge_Result".to_owned(),
        "AstModuleContext" => "WasmEdge_ASTModuleContext".to_owned(),
        other => format!("WasmEdge_{other}"),
    }
}

/// Every function of the file, as C declarations. An enumeration has the type `c_int` in Rust, which says
/// nothing about which one: it is taken over from the header.
fn declarations(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in source.split("pub(crate) fn ").skip(1) {
        let end = part.find(';').expect("a declaration ends");
        let text = part[..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let (name, rest) = text.split_once('(').expect("parameters");
        let (parameters, result) = rest.rsplit_once(')').expect("they end");
        // The callback is a type of its own in the header, the values are left out on purpose.
        if ["WasmEdge_LogSetCallback", "WasmEdge_ExecutorInvoke"].contains(&name)
            || text.contains("c_int")
        {
            continue;
        }
        let types: Vec<String> = parameters
            .split(',')
            .filter_map(|parameter| parameter.split_once(':'))
            .map(|(_, ty)| c_type(ty))
            .collect();
        let types = if types.is_empty() {
            "void".to_owned()
        } else {
            types.join(", ")
        };
        let result = result
            .trim()
            .strip_prefix("->")
            .map_or("void".to_owned(), c_type);
        found.push((name.to_owned(), format!("extern {result} {name}({types});")));
    }
    found
}

#[test]
fn the_declarations_are_those_of_the_headers() {
    let include = include().expect("the headers are beside the library: run hack/setup wasmedge");
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ffi.rs"))
        .expect("the source is there");
    let declarations = declarations(&source);
    assert!(declarations.len() > 40, "{}", declarations.len());
    let mut c = "#include <stddef.h>\n#include <wasmedge/wasmedge.h>\n".to_owned();
    for (_, declaration) in &declarations {
        let _ = writeln!(c, "{declaration}");
    }
    for (constant, value) in [
        ("WasmEdge_Proposal_ImportExportMutGlobals", 0),
        ("WasmEdge_Proposal_SIMD", 6),
        ("WasmEdge_Proposal_FunctionReferences", 9),
        ("WasmEdge_Proposal_GC", 10),
        ("WasmEdge_Proposal_MultiMemories", 11),
        ("WasmEdge_Proposal_RelaxSIMD", 12),
        ("WasmEdge_Proposal_ExceptionHandling", 14),
        ("WasmEdge_Proposal_Memory64", 15),
        ("WasmEdge_Proposal_Threads", 16),
        ("WasmEdge_Proposal_Component", 17),
        ("WasmEdge_RunMode_Interpreter", 0),
        ("WasmEdge_RunMode_AOT", 2),
        ("WasmEdge_ExternalType_Function", 0),
        ("WasmEdge_LogLevel_Warn", 3),
        ("WasmEdge_ErrCode_Terminated", 1),
        ("WasmEdge_ErrCode_CostLimitExceeded", 3),
        ("WasmEdge_ErrCode_MemoryOutOfBounds", 0x408),
        ("sizeof(WasmEdge_String)", 16),
        ("sizeof(WasmEdge_Bytes)", 16),
        ("sizeof(WasmEdge_Result)", 4),
        ("sizeof(WasmEdge_ValType)", 8),
        ("sizeof(WasmEdge_LogMessage)", 56),
        ("offsetof(WasmEdge_LogMessage, Message)", 0),
    ] {
        let _ = writeln!(c, "_Static_assert({constant} == {value}, \"{constant}\");");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("check.c");
    std::fs::write(&file, c).expect("written");
    let output = Command::new("gcc")
        .args(["-std=c11", "-fsyntax-only", "-I"])
        .arg(include)
        .arg(&file)
        .output()
        .expect("gcc is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
