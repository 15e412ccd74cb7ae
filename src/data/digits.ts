import * as E from 'fp-ts/lib/Either.js'
import { raise } from '../core/error.ts'
import { fold, key } from '../core/key.ts'
import { type Data, dataset, split } from './dataset.ts'
import { inflate } from './gzip.ts'

const COUNT = 10000
const PIXELS = 784

/**
 * The embedded digits: the first 10,000 MNIST *training* images, [1, 28, 28] each (never one of the official test
 * images), in a fixed random split into 8,000 to train and 2,000 to test. Decoded from the package at every call,
 * about 0.1 s. A package whose copy of them is damaged raises a file error.
 *
 * @example
 *   const { train, test } = await digits()
 *   [train.count, test.count] // [8000, 2000]
 */
export const digits = async (): Promise<Data> => {
  const { content, licence } = await import('./generated/digits.ts')
  const text = atob(content)
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i)
  const inflated = await inflate(bytes, 'digits', () => E.right(COUNT * (1 + PIXELS)))()
  const all = E.isLeft(inflated) ? raise(inflated.left) : inflated.right
  const [train, test] = split(
    fold(key(0), 'digits'),
    8000,
  )(
    dataset({
      name: 'digits',
      labels: all.subarray(0, COUNT),
      inputs: all.subarray(COUNT),
      shape: [1, 28, 28],
      classes: 10,
      licence,
      variants: { crop: 1, mirror: false },
    }),
  )
  return { train, test }
}
