//! From the type of an element, which is known when a layer runs, to code for that type.

/// Evaluates an expression with the type of a number for `T`; that of a truth value is a byte.
macro_rules! numbers {
    ($dtype:expr, $T:ident => $value:expr) => {
        $crate::engine::native::layers::types::typed!($dtype, $T => $value,
            F32 f32, F64 f64, I8 i8, I16 i16, I32 i32, I64 i64, U16 u16, U32 u32, U64 u64; u8)
    };
}

macro_rules! typed {
    ($dtype:expr, $T:ident => $value:expr, $($variant:ident $type:ident),*; $other:ident) => {
        match $dtype {
            $($crate::tensor::DType::$variant => {
                type $T = $type;
                $value
            })*
            _ => {
                type $T = $other;
                $value
            }
        }
    };
}

/// Evaluates an expression with an integer of the element's size for `T`, where elements are moved alone.
macro_rules! sized {
    ($dtype:expr, $T:ident => $value:expr) => {
        match $dtype.size() {
            Some(1) => {
                type $T = u8;
                $value
            }
            Some(2) => {
                type $T = u16;
                $value
            }
            Some(4) => {
                type $T = u32;
                $value
            }
            _ => {
                type $T = u64;
                $value
            }
        }
    };
}

pub(super) use {numbers, sized, typed};
