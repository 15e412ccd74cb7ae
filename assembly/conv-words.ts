/** Words of the three convolution instructions after the operands (words 3, 4 and 5); see opcode.ts. */
export const N = 6
export const C = 7
export const H = 8
export const W = 9
export const O = 10
export const KH = 11
export const KW = 12
export const OH = 13
export const OW = 14
export const STRIDE_Y = 15
export const STRIDE_X = 16
export const PAD_TOP = 17
export const PAD_LEFT = 18
export const DILATION_Y = 19
export const DILATION_X = 20
/** The optional epilogue (epilogue.ts). */
export const EPILOGUE = 21
