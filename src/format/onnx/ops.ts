import * as activation from './activation.ts'
import { eachImage } from './axes.ts'
import * as constant from './constant.ts'
import * as conv from './conv.ts'
import * as elementwise from './elementwise.ts'
import * as linear from './linear.ts'
import * as normalize from './normalize.ts'
import * as pool from './pool.ts'
import * as reduce from './reduce.ts'
import * as resize from './resize.ts'
import * as shape from './shape.ts'
import * as slice from './slice.ts'
import * as softmax from './softmax.ts'
import type { Import } from './values.ts'
import type { Export, Fuse } from './writer.ts'

/** The imports of ops that take images `[N, ...]`. */
const onImages = (imports: Readonly<Record<string, Import>>): Readonly<Record<string, Import>> =>
  Object.fromEntries(Object.entries(imports).map(([op, f]) => [op, eachImage(f)]))

/**
 * The ops of the ONNX standard that are read, opset 7 to 25 (https://onnx.ai/onnx/operators), by their names there. An import
 * checks its node and gives a step on operands that is right for every size of the batch. Integer tensors are shapes in the
 * making and are computed when the file is read, the batch as the symbol 'N'.
 */
export const IMPORTS: Readonly<Record<string, Import>> = {
  ...activation.imports,
  ...constant.imports,
  ...onImages(conv.imports),
  ...elementwise.imports,
  ...linear.imports,
  ...onImages(normalize.imports),
  ...normalize.overAxes,
  ...onImages(pool.imports),
  ...reduce.imports,
  ...resize.imports,
  ...shape.imports,
  ...slice.imports,
  ...softmax.imports,
}

/** The ops that are written, by the names of their records. */
export const EXPORTS: Readonly<Record<string, Export>> = {
  ...activation.exports,
  ...conv.exports,
  ...elementwise.exports,
  ...linear.exports,
  ...reduce.exports,
  ...shape.exports,
  ...softmax.exports,
  ...slice.exports,
}

/** Graphs of several ops that are written as one. */
export const FUSIONS: readonly Fuse[] = [...linear.fusions, ...conv.fusions, ...pool.fusions]
