//! Modules of any size, made of code: a start that reads all of a module, or of what it was compiled to,
//! takes longer the larger it is.
//!
//! Every byte comes from the function's number, so that the same size is the same module everywhere, and no
//! two functions are alike, so that no compiler can make one of them.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ElementSection, Elements, ExportKind, ExportSection,
    Function, FunctionSection, Ieee64, InstructionSink, MemArg, MemArgTarget, MemorySection,
    MemoryType, Module, RefType, TableSection, TableType, TypeSection, ValType,
};

/// Statements of one function, which make it about a kilobyte: what compilers see most of.
const STATEMENTS: usize = 64;

/// One function in so many is in the table, as those are of which a program takes the address.
const IN_TABLE: usize = 8;

/// Types by their number.
const START_TYPE: u32 = 0;
const WORK_TYPE: u32 = 1;

/// Parameters and locals of a function, two of each type.
const PARAMETER: u32 = 0;
const REAL_PARAMETER: u32 = 1;
const LEFT: u32 = 2;
const RIGHT: u32 = 3;
const REAL: u32 = 4;

/// A module that ends at once, with at least so many bytes of functions that are never called.
///
/// Each of them can be reached, through the table or from the one after it.
pub(crate) fn of_size(bytes: usize) -> Vec<u8> {
    let mut code = CodeSection::new();
    let mut start = Function::new([]);
    start.instructions().end();
    code.function(&start);
    let mut count = 0;
    while bytes > 0 && code.byte_len() < bytes {
        code.function(&work(count));
        count += 1;
    }
    assemble(&code, count)
}

fn assemble(code: &CodeSection, count: u32) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types
        .ty()
        .function([ValType::I32, ValType::F64], [ValType::I32]);
    let mut functions = FunctionSection::new();
    functions.function(START_TYPE);
    for _ in 0..count {
        functions.function(WORK_TYPE);
    }
    // From the last one on, which nobody calls.
    let in_table: Vec<u32> = (1..=count).rev().step_by(IN_TABLE).collect();
    let mut tables = TableSection::new();
    tables.table(TableType {
        element_type: RefType::FUNCREF,
        table64: false,
        minimum: in_table.len() as u64,
        maximum: None,
        shared: false,
    });
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports
        .export("memory", ExportKind::Memory, 0)
        .export("_start", ExportKind::Func, 0)
        .export("table", ExportKind::Table, 0);
    let mut elements = ElementSection::new();
    if !in_table.is_empty() {
        elements.active(
            None,
            &ConstExpr::i32_const(0),
            Elements::Functions(in_table.into()),
        );
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&tables)
        .section(&memories)
        .section(&exports)
        .section(&elements)
        .section(code);
    module.finish()
}

/// The function that comes after `number` others.
fn work(number: u32) -> Function {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(number));
    let mut function = Function::new([(2, ValType::I32), (1, ValType::F64)]);
    let mut code = function.instructions();
    for _ in 0..STATEMENTS {
        statement(&mut code, &mut random);
    }
    code.local_get(RIGHT);
    if number > 0 {
        // Functions by their index: the start is 0, so this is the one before.
        code.local_get(LEFT).local_get(REAL).call(number).i32_add();
    }
    code.end();
    function
}

/// What programs consist of: arithmetic, memory, branches, some floating point.
fn statement(code: &mut InstructionSink, random: &mut Random) {
    let constant = random.next();
    let at = MemArg {
        offset: u64::from(random.next() % 1024 * 4),
        align: 2,
        target: MemArgTarget::Memory(0),
        ordering: None,
    };
    let real = Ieee64::from(f64::from(random.next()) / 7.0);
    match random.next() % 6 {
        0 => code
            .local_get(RIGHT)
            .i32_const(constant.cast_signed())
            .i32_mul()
            .local_get(PARAMETER)
            .i32_add()
            .local_set(LEFT),
        1 => code
            .local_get(LEFT)
            .i32_const(0xfff)
            .i32_and()
            .local_get(RIGHT)
            .i32_store(at),
        2 => code
            .local_get(LEFT)
            .i32_const(0xfff)
            .i32_and()
            .i32_load(at)
            .local_set(RIGHT),
        3 => code
            .local_get(REAL)
            .f64_const(real)
            .f64_mul()
            .local_get(REAL_PARAMETER)
            .f64_add()
            .local_set(REAL),
        4 => code
            .local_get(LEFT)
            .i32_const(constant.cast_signed())
            .i32_lt_s()
            .if_(BlockType::Empty)
            .local_get(RIGHT)
            .local_get(PARAMETER)
            .i32_xor()
            .local_set(RIGHT)
            .else_()
            .local_get(LEFT)
            .i32_const(constant.cast_signed())
            .i32_rotl()
            .local_set(LEFT)
            .end(),
        _ => code
            .local_get(REAL)
            .f64_const(real)
            .f64_lt()
            .local_get(RIGHT)
            .i32_add()
            .local_set(RIGHT),
    };
}

/// Numbers that look like chance and are the same every time: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wasmparser::{Parser, Payload, Validator};

    use super::*;

    #[test]
    fn modules_are_valid_and_as_large_as_asked() {
        for bytes in [0, 1, 20_000, 1_000_000] {
            let module = of_size(bytes);
            Validator::new()
                .validate_all(&module)
                .expect("a valid module");
            assert!(module.len() >= bytes, "{bytes}: {}", module.len());
            assert!(
                module.len() <= bytes + bytes / 20 + 4096,
                "{bytes}: {}",
                module.len()
            );
        }
    }

    #[test]
    fn the_same_size_is_the_same_module() {
        assert_eq!(of_size(50_000), of_size(50_000));
    }

    #[test]
    fn a_module_is_code_and_no_two_functions_are_alike() {
        let module = of_size(100_000);
        let mut code = 0;
        let mut bodies = BTreeSet::new();
        let mut functions = 0;
        for payload in Parser::new(0).parse_all(&module) {
            match payload.expect("a valid module") {
                Payload::CodeSectionEntry(body) => {
                    functions += 1;
                    code += body.range().len();
                    bodies.insert(module[body.range()].to_vec());
                }
                Payload::DataSection(_) => panic!("no data"),
                _ => {}
            }
        }
        assert_eq!(bodies.len(), functions);
        assert!(code * 10 > module.len() * 9, "{code} of {}", module.len());
    }
}
