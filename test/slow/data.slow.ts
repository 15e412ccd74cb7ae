import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { files } from '../../src/data/files.ts'
import { loadFolder } from '../../src/data/folder.ts'
import { unpack } from '../../src/data/unpack.ts'
import { inFolder } from '../cli/run.ts'
import { right, shared, skipped } from '../shared.ts'

test(
  'ten thousand real images of Tiny-ImageNet, unpacked, decoded, and read back from their cache',
  inFolder(async (folder) => {
    const archive = shared('data/tiny-imagenet/tiny-imagenet-200-part.tar.gz')
    if (archive === undefined) return skipped('ten thousand real images', 'shared/data/tiny-imagenet is absent')
    right(await unpack(archive, { format: 'tar.gz', folder: 'tiny-imagenet-200' }, folder)())
    const first = right(await loadFolder(files)(folder)())
    const { train, test } = first
    assert.equal([train.count, test.count, train.classes], [8000, 2000, 200])
    // Whole rounds of all classes, and ten validation images of each.
    for (let i = 0; i < train.count; i++) assert.is(train.labels[i], i % 200)
    for (let label = 0; label < 200; label++) assert.is(test.labels.filter((l) => l === label).length, 10)
    // Photographs fill the range, and their mean is near the one that networks subtract.
    for (const c of [0, 1, 2]) {
      let [sum, low, high] = [0, 255, 0]
      for (let i = 0; i < train.count; i++)
        for (let p = 0; p < 4096; p++) {
          const v = train.inputs[(3 * i + c) * 4096 + p]
          sum += v
          low = Math.min(low, v)
          high = Math.max(high, v)
        }
      assert.equal([low, high], [0, 255])
      assert.ok(Math.abs(sum / (train.count * 4096 * 255) - (train.normalization?.mean[c] ?? 0)) < 0.03)
    }
    assert.equal(right(await loadFolder(files)(folder)()), first)
  }),
)

test.run()
