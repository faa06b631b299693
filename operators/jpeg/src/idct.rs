//! The inverse DCT of one block, dequantised: the accurate integer method of libjpeg (Loeffler, Ligtenberg, Moschytz 1989),
//! so that pictures are the same as there, bit by bit.

const CONST_BITS: u32 = 13;
const PASS1_BITS: u32 = 2;
const F_0_298: i32 = 2446;
const F_0_390: i32 = 3196;
const F_0_541: i32 = 4433;
const F_0_765: i32 = 6270;
const F_0_899: i32 = 7373;
const F_1_175: i32 = 9633;
const F_1_501: i32 = 12299;
const F_1_847: i32 = 15137;
const F_1_961: i32 = 16069;
const F_2_053: i32 = 16819;
const F_2_562: i32 = 20995;
const F_3_072: i32 = 25172;

/// Writes the samples of a block (coefficients and quantisation steps in natural order) into `out`, rows of `stride`.
pub fn idct(block: &[i16; 64], quant: &[u16; 64], out: &mut [u8], stride: usize) {
    if block[1..].iter().all(|value| *value == 0) {
        let first = i32::from(block[0]) * i32::from(quant[0]);
        let sample = limit(descale(first << PASS1_BITS, PASS1_BITS + 3) as i16);
        out.chunks_mut(stride).take(8).for_each(|row| row[..8].fill(sample));
        return;
    }
    let mut values = [[0_i16; 8]; 8];
    for (value, (coefficient, step)) in values.as_flattened_mut().iter_mut().zip(block.iter().zip(quant)) {
        *value = coefficient.wrapping_mul(*step as i16);
    }
    let columns = transform(&values, CONST_BITS - PASS1_BITS);
    let columns = transform(&transpose(&columns), CONST_BITS + PASS1_BITS + 3);
    let mut samples = [[0; 8]; 8];
    for (sample, value) in samples.as_flattened_mut().iter_mut().zip(columns.as_flattened()) {
        *sample = limit(*value);
    }
    for (row, samples) in out.chunks_mut(stride).zip(transpose(&samples)) {
        row[..8].copy_from_slice(&samples);
    }
}

#[inline(always)]
fn descale(value: i32, bits: u32) -> i32 {
    value.wrapping_add(1 << (bits - 1)) >> bits
}

#[inline(always)]
fn limit(value: i16) -> u8 {
    (value.clamp(-128, 127) + 128) as u8
}

#[inline(always)]
fn transpose<T: Copy + Default>(values: &[[T; 8]; 8]) -> [[T; 8]; 8] {
    let mut turned = [[T::default(); 8]; 8];
    for (row, values) in values.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            turned[column][row] = *value;
        }
    }
    turned
}

/// Eight transforms side by side: of the values that stand in one place of all rows. Products of 16 bits throughout, so
/// that compilers make vectors of them; sums of products are exact, whatever their order.
#[inline(always)]
fn transform(v: &[[i16; 8]; 8], scale: u32) -> [[i16; 8]; 8] {
    let mut out = [[0; 8]; 8];
    for i in 0..8 {
        let narrow = |value: i32| descale(value, scale).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        let mul = |value: i16, by: i32| i32::from(value).wrapping_mul(by);
        // Even part.
        let t2 = mul(v[2][i], F_0_541).wrapping_add(mul(v[6][i], F_0_541 - F_1_847));
        let t3 = mul(v[2][i], F_0_541 + F_0_765).wrapping_add(mul(v[6][i], F_0_541));
        let t0 = (i32::from(v[0][i]) + i32::from(v[4][i])) << CONST_BITS;
        let t1 = (i32::from(v[0][i]) - i32::from(v[4][i])) << CONST_BITS;
        let (e0, e3) = (t0.wrapping_add(t3), t0.wrapping_sub(t3));
        let (e1, e2) = (t1.wrapping_add(t2), t1.wrapping_sub(t2));
        // Odd part.
        let (o0, o1, o2, o3) = (v[7][i], v[5][i], v[3][i], v[1][i]);
        let (z3, z4) = (o0.wrapping_add(o2), o1.wrapping_add(o3));
        let y3 = mul(z3, F_1_175 - F_1_961).wrapping_add(mul(z4, F_1_175));
        let y4 = mul(z3, F_1_175).wrapping_add(mul(z4, F_1_175 - F_0_390));
        let p0 = mul(o0, F_0_298 - F_0_899).wrapping_add(mul(o3, -F_0_899)).wrapping_add(y3);
        let p1 = mul(o1, F_2_053 - F_2_562).wrapping_add(mul(o2, -F_2_562)).wrapping_add(y4);
        let p2 = mul(o1, -F_2_562).wrapping_add(mul(o2, F_3_072 - F_2_562)).wrapping_add(y3);
        let p3 = mul(o0, -F_0_899).wrapping_add(mul(o3, F_1_501 - F_0_899)).wrapping_add(y4);
        out[0][i] = narrow(e0.wrapping_add(p3));
        out[7][i] = narrow(e0.wrapping_sub(p3));
        out[1][i] = narrow(e1.wrapping_add(p2));
        out[6][i] = narrow(e1.wrapping_sub(p2));
        out[2][i] = narrow(e2.wrapping_add(p1));
        out[5][i] = narrow(e2.wrapping_sub(p1));
        out[3][i] = narrow(e3.wrapping_add(p0));
        out[4][i] = narrow(e3.wrapping_sub(p0));
    }
    out
}
