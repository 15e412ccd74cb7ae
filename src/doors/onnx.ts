/**
 * `mixtrain/onnx`: models of other programs, read and written. Reading gives an `Either`; `orThrow` of the root door turns it into a value or an exception.
 *
 * @example
 *   import { orThrow } from 'mixtrain'
 *   import * as onnx from 'mixtrain/onnx'
 *   const { network, input, output } = orThrow(onnx.decodeOnnx(bytes, 'model.onnx'))
 *
 * @module
 */

export { encodeModelOnnx } from '../format/model.ts'
export {
  decodeOnnx,
  encodeOnnx,
  type OnnxExport,
  type OnnxModel,
  type OnnxOptions,
  OPSETS,
  parameterConstants,
} from '../format/onnx/index.ts'
