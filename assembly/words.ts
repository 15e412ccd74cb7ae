// Made by tools/words.js from src/backend/wasm/words.ts, which says what they mean. Do not edit.

export enum Opcode {
  halt = 0,
  loop = 1,
  fill = 2,
  matmul = 3,
  conv2d = 4,
  conv2dInput = 5,
  conv2dWeight = 6,
  gather = 7,
  scatterAdd = 8,
  argmax = 9,
  unfold = 10,
  fold = 11,
  repeat = 12,
  end = 13,
  compact = 14,
  scatterInto = 15,
  loops = 16,
  groupConv2d = 17,
  groupConv2dInput = 18,
  groupConv2dWeight = 19,
}

export enum LoopMode {
  map = 0,
  inner = 1,
  keep = 2,
}

export enum Combine {
  sum = 0,
  max = 1,
  min = 2,
}

export enum Micro {
  add = 0,
  sub = 1,
  mul = 2,
  div = 3,
  min = 4,
  max = 5,
  neg = 6,
  abs = 7,
  sign = 8,
  step = 9,
  relu = 10,
  sqrt = 11,
  exp = 12,
  log = 13,
  tanh = 14,
  sigmoid = 15,
  greater = 16,
  greaterEqual = 17,
  equal = 18,
  select = 19,
  splitMul = 20,
  mulAdd = 21,
  absMul = 22,
  up = 23,
  down = 24,
  erf = 25,
  sin = 26,
  cos = 27,
  floor = 28,
  round = 29,
}

export enum Header {
  opcode = 0,
  length = 1,
  work = 2,
  end = 3,
}

export enum Loop {
  depth = 3,
  mode = 4,
  combine = 5,
  kept = 6,
  inputs = 7,
  ops = 8,
  registers = 9,
  out = 10,
  offset = 11,
  end = 12,
}

export enum Loops {
  end = 3,
}

export enum Fill {
  out = 3,
  offset = 4,
  n = 5,
  bits = 6,
  end = 7,
}

export enum Matmul {
  a = 3,
  b = 4,
  out = 5,
  m = 6,
  k = 7,
  n = 8,
  transA = 9,
  transB = 10,
  batch = 11,
  strideA = 12,
  strideB = 13,
  strideOut = 14,
  end = 15,
}

export enum Conv {
  a = 3,
  b = 4,
  out = 5,
  N = 6,
  C = 7,
  H = 8,
  W = 9,
  O = 10,
  KH = 11,
  KW = 12,
  OH = 13,
  OW = 14,
  strideY = 15,
  strideX = 16,
  padTop = 17,
  padLeft = 18,
  dilationY = 19,
  dilationX = 20,
  end = 21,
}

export enum Rows {
  x = 3,
  index = 4,
  out = 5,
  n = 6,
  rows = 7,
  d = 8,
  end = 9,
}

export enum Argmax {
  x = 3,
  out = 4,
  outer = 5,
  axis = 6,
  inner = 7,
  end = 8,
}

export enum Windows {
  a = 3,
  out = 4,
  N = 5,
  C = 6,
  H = 7,
  W = 8,
  KH = 9,
  KW = 10,
  OH = 11,
  OW = 12,
  strideY = 13,
  strideX = 14,
  padTop = 15,
  padLeft = 16,
  dilationY = 17,
  dilationX = 18,
  end = 19,
}

export enum Repeat {
  count = 3,
  per = 4,
  most = 5,
  round = 6,
  end = 7,
}

export enum Compact {
  x = 3,
  out = 4,
  n = 5,
  rank = 6,
  end = 7,
}

export enum Epilogue {
  bias = 0,
  relu = 1,
  end = 2,
}

export enum View {
  slot = 0,
  offset = 1,
  end = 2,
}

export enum Op {
  micro = 0,
  dst = 1,
  a = 2,
  b = 3,
  c = 4,
  end = 5,
}

export enum Stored {
  op = 0,
  slot = 1,
  end = 2,
}

export enum Moving {
  slot = 0,
  store = 1,
  at = 2,
  stride = 3,
  end = 4,
}
