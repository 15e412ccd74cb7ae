import type { Op } from '../core/op.ts'
import * as K from './clipped.ts'
import * as N from './coefficients.ts'
import * as C from './conv.ts'
import * as D from './directed.ts'
import * as L from './elementwise.ts'
import * as I from './increasing.ts'
import * as M from './linear.ts'
import * as W from './periodic.ts'
import * as P from './power.ts'
import * as R from './reduce.ts'
import * as Z from './relu.ts'
import * as H from './shape.ts'
import * as T from './smooth.ts'
import * as X from './softmax.ts'
import * as V from './valley.ts'

export * from './box.ts'
export * from './clipped.ts'
export * from './coefficients.ts'
export * from './conv.ts'
export * from './custom.ts'
export * from './directed.ts'
export * from './elementwise.ts'
export * from './increasing.ts'
export * from './linear.ts'
export type { Argument } from './maker.ts'
export * from './outward.ts'
export * from './periodic.ts'
export * from './power.ts'
export * from './reduce.ts'
export * from './relu.ts'
export * from './shape.ts'
export * from './smooth.ts'
export * from './softmax.ts'
export * from './source.ts'
export * from './valley.ts'

/** Every computing op there is (leaves and choices aside, which are bound or staged, not computed). Tests walk this list. */
// biome-ignore lint/suspicious/noExplicitAny: records of every attribute type
export const registry: readonly Op<any>[] = [
  L.addOp,
  L.subOp,
  L.mulOp,
  L.divOp,
  L.negOp,
  Z.absOp,
  L.signOp,
  L.stepOp,
  L.minimumOp,
  L.maximumOp,
  L.greaterOp,
  L.greaterEqualOp,
  L.equalOp,
  L.selectOp,
  Z.reluOp,
  Z.leakyReluOp,
  T.sigmoidOp,
  T.tanhOp,
  T.expOp,
  T.logOp,
  T.sqrtOp,
  K.clipOp,
  K.preluOp,
  I.eluOp,
  I.softplusOp,
  I.softsignOp,
  I.erfOp,
  V.geluOp,
  V.siluOp,
  V.hardSwishOp,
  V.mishOp,
  P.powOp,
  P.reciprocalOp,
  W.sinOp,
  W.cosOp,
  W.floorOp,
  W.roundOp,
  N.splitMulOp,
  N.absMulOp,
  D.upOp,
  D.downOp,
  M.matmulOp,
  C.conv2dOp,
  C.conv2dInputOp,
  C.conv2dWeightOp,
  C.unfoldOp,
  C.foldOp,
  C.maxOfWindowsOp,
  H.reshapeOp,
  H.transposeOp,
  H.broadcastOp,
  H.sumOp,
  H.padOp,
  H.sliceOp,
  H.concatOp,
  H.gatherOp,
  H.scatterAddOp,
  H.stopGradientOp,
  H.probeOp,
  R.maxOp,
  R.argmaxOp,
  R.compactOp,
  X.logSumExpOp,
  X.logSoftmaxOp,
  X.softmaxOp,
  X.crossEntropyOp,
]
