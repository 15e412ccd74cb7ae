import * as E from 'fp-ts/lib/Either.js'
import { fileError, type MixtrainError } from '../core/error.ts'
import type { Normalization } from '../nn/layers.ts'
import { type Dataset, dataset, type Variants } from './dataset.ts'

const PLANE = 1024
const RECORD = 1 + 3 * PLANE
const CLASSES = 10
/** In the order of its labels, as `batches.meta.txt` has them. */
const classNames = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']

/** As the paper's networks have it: ImageNet's mean, one deviation for all channels. */
const normalization: Normalization = { mean: [0.485, 0.456, 0.406], std: [0.225, 0.225, 0.225] }
const variants: Variants = { crop: 4, mirror: true }

/** A file of the binary version of CIFAR-10. */
export interface Batch {
  readonly path: string
  readonly bytes: Uint8Array
}

const check = ({ path, bytes }: Batch): E.Either<MixtrainError, Batch> => {
  const count = Math.floor(bytes.length / RECORD)
  if (count === 0 || bytes.length !== count * RECORD)
    return E.left(
      fileError(
        path,
        `expected records of ${RECORD} bytes (label, then planes of red, green and blue), found ${bytes.length} bytes: ${count} records and ${bytes.length - count * RECORD} bytes more`,
        `byte ${count * RECORD}`,
      ),
    )
  for (let i = 0; i < count; i++)
    if (bytes[i * RECORD] >= CLASSES)
      return E.left(
        fileError(
          path,
          `expected a label from 0 to ${CLASSES - 1}, found ${bytes[i * RECORD]} (image ${i})`,
          `byte ${i * RECORD}`,
        ),
      )
  return E.right({ path, bytes })
}

/**
 * The images of CIFAR-10 batches, in order, [3, 32, 32] each. A record is a label byte and three planes of 32 x 32 bytes, red, green
 * and blue (the "binary version" of its page). Errors: a file that is not whole records, a label above 9.
 */
export const decodeCifar = (batches: readonly Batch[]): E.Either<MixtrainError, Dataset> => {
  for (const batch of batches) {
    const checked = check(batch)
    if (E.isLeft(checked)) return checked
  }
  const count = batches.reduce((n, { bytes }) => n + bytes.length / RECORD, 0)
  const inputs = new Uint8Array(count * 3 * PLANE)
  const labels = new Uint8Array(count)
  let image = 0
  for (const { bytes } of batches)
    for (let at = 0; at < bytes.length; at += RECORD, image++) {
      labels[image] = bytes[at]
      inputs.set(bytes.subarray(at + 1, at + RECORD), image * 3 * PLANE)
    }
  return E.right(
    dataset({
      name: 'cifar-10',
      ...{ inputs, labels, shape: [3, 32, 32], classes: CLASSES, classNames, normalization, variants },
    }),
  )
}
