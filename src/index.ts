/**
 * `mixtrain`: tensors, interval tensors and ops; graphs and how they are differentiated, bounded and run; networks, losses, training, metrics, files and verification.
 * Ops and combinators are plain functions, and all of it is tree-shakeable. The other doors have parts of it under shorter names.
 *
 * @example
 *   import { ball, constant, evaluate, reference, relu } from 'mixtrain'
 *   const { lower, upper } = relu(ball(constant([0.5, 0.05], [2]), 0.1))
 *   const [l, u] = await evaluate(reference())([lower, upper])
 *
 * @module
 */

// The public names, by hand.

export {
  type Device,
  type DeviceName,
  type DeviceOptions,
  device,
  deviceNames,
  openDevice,
  withFallback,
} from './backend/device.ts'
export { reference } from './backend/reference.ts'
// ---- types that signatures above name -------------------------------------------------------------------------------------------
export type { Pace, Pacing } from './backend/wasm/pace.ts'
export { type WasmOptions, wasm } from './backend/wasm/wasm.ts'
export { type Bounded, linearBounds } from './bounds/linear-bounds.ts'
export type { AccumulateOptions } from './compile/accumulate.ts'
export { accumulate, rematerialize } from './compile/accumulate.ts'
// ---- devices, and running graphs on them ------------------------------------------------------------------------------------
export type { Backend, Buffer, Data as BufferData, Executable, Stats } from './compile/backend.ts'
export type { Call, PlanOptions, Slot } from './compile/plan.ts'
// ---- transforms of graphs: differentiate, bound, print, plan --------------------------------------------------------------
export { type Plan, plan } from './compile/plan.ts'
export {
  type Fitting,
  fitted,
  type Graphs,
  type Inputs as ProgramInputs,
  type Program,
  program,
  programOf,
  type Results,
  type Running,
  type Shapes,
  type Targets,
  type Value,
  type Values,
} from './compile/program.ts'
export { openRegion, type Region, withRegion } from './compile/region.ts'
export { type Compiled, compile, compileIn, evaluate } from './compile/run.ts'
export { print, type Tape, tape } from './compile/tape.ts'
export { grad, vjp } from './compile/vjp.ts'
export type { Epsilon } from './core/epsilon.ts'
export type { Outcome as Fallible } from './core/error.ts'
// ---- errors: values, and the one exception that carries one -----------------------------------------------------------------------
export { type MixtrainError, MixtrainException, orThrow, show } from './core/error.ts'
// ---- randomness: keys are values, the same numbers on every engine ----------------------------------------------------------------
export { fold as foldKey, type Key, key, split as splitKey } from './core/key.ts'
export type { Lowering, ReferenceKernel } from './core/lowering.ts'
// ---- tensors, interval tensors and ops: each takes tensors or interval tensors and returns the same kind ---------------
export {
  type Affine,
  type Bilinear,
  type Conv,
  type Definition,
  type Domain,
  interval,
  type Kernel,
  type Linear,
  type Op,
  type Outward,
  type Reduction,
  type Relax,
  type Rounds,
  type Slope,
  type Unsupported,
  unsupported,
} from './core/op.ts'
export type { Rational } from './core/rational.ts'
export type { Rounding, Semantics } from './core/rounding.ts'
export { type Shape, size } from './core/shape.ts'
export type { Join, Pair, Windowed } from './core/tensor.ts'
export {
  type Apply,
  type Ball,
  type Interval,
  isInterval,
  type Norm,
  type Operand,
  type Tensor,
} from './core/tensor.ts'
// ---- data -----------------------------------------------------------------------------------------------------------------------
export {
  batches,
  type Data,
  type Dataset,
  dataset,
  labelsOf,
  pixels,
  select as selectImages,
  slice as sliceImages,
  split as splitImages,
  take,
  type Variants,
} from './data/dataset.ts'
export { digits } from './data/digits.ts'
export { type FileReader, files } from './data/files.ts'
export { loadFolder } from './data/folder.ts'
export * from './doors/bounds.ts'
export type { Provenance } from './format/model.ts'
// ---- files ----------------------------------------------------------------------------------------------------------------------
export { decodeModel, encodeModel, encodeModelOnnx, type SavedModel } from './format/model.ts'
export { decodeOnnx, encodeOnnx, type OnnxExport, type OnnxModel } from './format/onnx/index.ts'
export type { Metadata, Tensors } from './format/safetensors.ts'
export {
  decode as decodeSafetensors,
  encode as encodeSafetensors,
  type Safetensors,
} from './format/safetensors.ts'
export { controlled, hardest, importance, type Scores, scored, stratified } from './loss/choice.ts'
export { fusedCrossEntropy } from './loss/fusion.ts'
export { type Latent, latentLogits } from './loss/latent.ts'
export {
  add as addLosses,
  alternate,
  always,
  type Bounds,
  bernoulli,
  type Gate,
  gate,
  geometric,
  getMonoid as lossMonoid,
  type Hidden,
  type Inputs,
  type Logits,
  type Loss,
  mix,
  mixBounds,
  mixLogits,
  named,
  product,
  type Region as InputRegion,
  type Schedule,
  type Step,
  sampled,
  scale,
  scheduled,
  type Weight,
  withPopulation,
  zero as zeroLoss,
} from './loss/loss.ts'
export {
  adversarial,
  attacked,
  balance,
  ccIbp,
  controlledMixTrain,
  crownIbp as crownIbpLoss,
  distilled,
  expIbp,
  farStep,
  fastIbp,
  featureDistilled,
  forward,
  frozen,
  hydra,
  judged,
  madry,
  mart,
  mixTrain,
  mtlIbp,
  natural,
  type ObjectiveName,
  objectives,
  robust,
  sabr,
  staps,
  taps,
  trades,
  twofold,
  verifiable,
  wongKolter,
  worstCase,
  worstLogits,
} from './loss/objective.ts'
export { at, bounded, clean, hidden, perturbed, smallBox, wholeBall } from './loss/region.ts'
export * as regularizers from './loss/regularizer.ts'
export * as schedules from './loss/schedule.ts'
export { smoothed } from './loss/smoothing.ts'
// ---- losses: an algebra (arXiv:1811.02625 and its field) ----------------------------------------------------------------------
export { boostedCrossEntropy, type Criterion, correct, crossEntropy, divergence, marginLoss } from './nn/criterion.ts'
export type { Initializer, Layer, Named, Normalization, Parameter } from './nn/layers.ts'
// ---- networks: layers.conv, layers.dense, ... and networks.small, networks.cnn7, ... -------------------------------------------
export * as layers from './nn/layers.ts'
export { type Network, type NetworkName, network, networks } from './nn/networks.ts'
export {
  abs,
  add,
  argmax,
  averagePool2d,
  broadcastTo,
  type Chosen,
  type ConvOptions,
  ceil,
  celu,
  centre,
  clamp,
  clip,
  compact,
  concat,
  constant,
  conv2d,
  convTranspose2d,
  cos,
  custom,
  div,
  elu,
  equal,
  erf,
  exp,
  feed,
  floor,
  full,
  gather,
  gelu,
  greater,
  greaterEqual,
  type Host,
  hardSigmoid,
  hardSwish,
  hull,
  input,
  intersection,
  iota,
  leakyRelu,
  log,
  logSoftmax,
  logSumExp,
  matmul,
  max,
  maximum,
  maxPool2d,
  mean,
  min,
  minimum,
  mish,
  mul,
  neg,
  oneHot,
  type PoolOptions,
  pad,
  pow,
  prelu,
  probe,
  radius,
  reciprocal,
  relu,
  reshape,
  round,
  scalar,
  scatterAdd,
  select,
  selu,
  sigmoid,
  sign,
  silu,
  sin,
  slice,
  softmax,
  softplus,
  softsign,
  sqrt,
  stopGradient,
  sub,
  sum,
  type TransposedOptions,
  tanh,
  thresholdedRelu,
  transpose,
  upsample2d,
  zeros,
} from './ops/index.ts'
export type { Matmul, Matrix } from './ops/linear.ts'
export type { Arg, Argument } from './ops/maker.ts'
export type { Semantics as ProofSemantics } from './proof/bounds.ts'
// ---- proofs: written by `imageProver`, checked without a line of what wrote them -------------------------------------------------
export { Refused } from './proof/exact.ts'
export type {
  Checked,
  Header as ProofHeader,
  ImageClaim as ProvedImage,
  PropertyClaim as ProvedProperty,
} from './proof/file.ts'
export type { Outcome as ProofOutcome } from './proof/proof.ts'
export { type Attack, fgsm, type Pgd, pgd, type Target, wider } from './robust/attack.ts'
export {
  checkOp,
  type OpCheck,
  type OpCheckOptions,
  type OperandRange,
  type OpLaw,
  opLaws,
  type Violation,
} from './robust/check-op.ts'
export { type IntervalStep, intervalStep } from './robust/interval-attack.ts'
export type { Evaluator, Questions } from './robust/metric.ts'
// ---- metrics: ACC, ERA and VRA --------------------------------------------------------------------------------------------------
export { evaluator, type Images, rates, type Verdicts } from './robust/metric.ts'
export { ball, norms, type Range } from './robust/perturbation.ts'
export {
  type AttackName,
  type AttackOptions,
  attackNames,
  type Outcome,
  search,
  type TargetLoss,
} from './robust/search.ts'
export { margins, rivals, type Specification } from './robust/specification.ts'
// ---- training: `for await (const epoch of fit({ loss, data, epsilon: 0.1 })(await device()))` ----------------------------------
export { averaged } from './train/average.ts'
export { adaptive as adaptiveBalance, type Balance, fixed as fixedBalance, tightShare } from './train/balance.ts'
export * as cascade from './train/cascade.ts'
export type { Part, StoredRun } from './train/checkpoint.ts'
export {
  decodeCheckpoint,
  encodeCheckpoint,
  restore as restoreCheckpoint,
  type Settings,
} from './train/checkpoint.ts'
export type {
  Checkpoint,
  EpochRecord,
  Failure,
  FitOptions,
  Progress,
  StepRecord,
  TrainedEpoch,
  Within,
} from './train/fit.ts'
export type { Slots } from './train/optimizer.ts'
export { type Adam, adam, clipGradients, type Optimizer, radam, sgd } from './train/optimizer.ts'
export { fit, holdOut, type QuickOptions } from './train/quick.ts'
export { certifiedRadii, type RadiusOptions } from './train/radius.ts'
export type { Leaf, Ranks, Span, Swapped } from './train/ranks.ts'
export { pgdAttack, type Recipe, type RecipeOptions, recipe } from './train/recipe.ts'
export type { TrainState } from './train/resident.ts'
export { type Verified, type VerifiedBy, type VerifyOptions, verify } from './train/verify.ts'
export type { Patience, Progress as VerificationProgress, PropertyExtent, Verdict } from './verify/branch-and-bound.ts'
export {
  type Decider,
  type DecisionOptions,
  decider,
  type PropertyOptions,
  type Verification,
  verifyProperty,
} from './verify/branch-and-bound.ts'
export { checkProof, type ProofFiles } from './verify/check-proof.ts'
export type { Constraint, ExactConstraint, Subject, UnsafeCase, UnsafeProperty } from './verify/counterexample.ts'
export type { Counterexample } from './verify/counterexample-check.ts'
export { type ImageClaim, type ImageFindings, imageProver } from './verify/image-proof.ts'
export type { Pack } from './verify/prove.ts'
export type { Replay, Replayed } from './verify/replay.ts'
export { robustness } from './verify/robustness.ts'
export type { Refuted, SearchNode, SearchTree, Split, WalkSlopes } from './verify/trace.ts'
