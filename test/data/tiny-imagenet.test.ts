import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as TE from 'fp-ts/lib/TaskEither.js'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { type FileReader, files } from '../../src/data/files.ts'
import { loadFolder } from '../../src/data/folder.ts'
import { CACHE } from '../../src/data/tiny-imagenet.ts'
import { inFolder } from '../cli/run.ts'
import { left, right } from '../shared.ts'
import { jpeg, picture } from './jpeg-fixture.ts'

/** wnids.txt of the official set is not sorted either. */
const IDS = ['n02124075', 'n01443537', 'n04067472']

const write = (path: string, content: string | Uint8Array) => {
  mkdirSync(join(path, '..'), { recursive: true })
  writeFileSync(path, content)
}

/** Image j of class c: grey 10 c + j, or (every second one) a colour whose luma is that. */
const image = (c: number, j: number): Uint8Array =>
  picture((block) => (j % 2 === 0 ? [10 * c + j + block] : [10 * c + j + block, 128, 128]))

const official = (folder: string, perClass = [2, 3, 2]): void => {
  write(join(folder, 'wnids.txt'), `${IDS.join('\n')}\n`)
  IDS.forEach((id, c) => {
    for (let j = 0; j < perClass[c]; j++) write(join(folder, 'train', id, 'images', `${id}_${j}.JPEG`), image(c, j))
    write(join(folder, 'train', id, `${id}_boxes.txt`), 'boxes')
  })
  write(
    join(folder, 'val/val_annotations.txt'),
    `val_0.JPEG\t${IDS[2]}\t0\t32\t44\t62\nval_1.JPEG\t${IDS[0]}\t0\t0\t9\t9\n`,
  )
  write(join(folder, 'val/images/val_0.JPEG'), image(2, 7))
  write(join(folder, 'val/images/val_1.JPEG'), image(0, 8))
}

/** Pixel [c, y, x] of an image. */
const at = (d: { readonly inputs: ArrayLike<number> }, i: number, c: number, y: number, x: number): number =>
  d.inputs[((i * 3 + c) * 64 + y) * 64 + x]

test(
  'classes in the order of their ids, images interleaved, greyscale and colour',
  inFolder(async (folder) => {
    official(folder)
    const { train, test } = right(await loadFolder(files)(folder)())
    assert.equal([train.name, train.shape, train.classes], ['tiny-imagenet', [3, 64, 64], 3])
    // Sorted: n01443537 (class 1 of the fixture), n02124075 (class 0), n04067472 (class 2).
    assert.equal([...train.labels], [0, 1, 2, 0, 1, 2, 0])
    assert.equal([...test.labels], [2, 1])
    const order = [
      [1, 0],
      [0, 0],
      [2, 0],
      [1, 1],
      [0, 1],
      [2, 1],
      [1, 2],
    ]
    order.forEach(([c, j], i) => {
      for (const [y, x] of [
        [0, 0],
        [7, 8],
        [63, 63],
        [40, 17],
      ])
        for (const channel of [0, 1, 2])
          assert.is(at(train, i, channel, y, x), 10 * c + j + 8 * (y >> 3) + (x >> 3), `image ${i}`)
    })
    assert.is(at(test, 0, 2, 9, 1), 27 + 8)
    assert.ok(train.normalization !== undefined && train.variants?.mirror)
  }),
)

test(
  'channels are red, green, blue',
  inFolder(async (folder) => {
    official(folder)
    // Full red in JFIF's luma and chroma.
    write(
      join(folder, 'val/images/val_0.JPEG'),
      picture(() => [76, 85, 255]),
    )
    const { test } = right(await loadFolder(files)(folder)())
    const [r, g, b] = [0, 1, 2].map((c) => at(test, 0, c, 30, 30))
    assert.ok(r >= 253 && g <= 2 && b <= 2, `${[r, g, b]}`)
  }),
)

/** Counts the JPEG files that are read. */
const counting = (): { readonly reader: FileReader; readonly decoded: () => number } => {
  let count = 0
  return {
    reader: {
      ...files,
      read: (path) => {
        if (path.endsWith('.JPEG')) count++
        return files.read(path)
      },
    },
    decoded: () => count,
  }
}

test(
  'images are decoded once; a stale or damaged cache is made anew',
  inFolder(async (folder) => {
    official(folder)
    const load = async () => {
      const { reader, decoded } = counting()
      const data = right(await loadFolder(reader)(folder)())
      return { data, decoded: decoded() }
    }
    const first = await load()
    assert.is(first.decoded, 9)
    const again = await load()
    assert.is(again.decoded, 0)
    assert.equal(again.data, first.data)
    const cache = join(folder, CACHE)
    const bytes = readFileSync(cache)
    for (const [name, damage] of [
      ['a pixel', bytes.map((b, i) => (i === bytes.length - 5000 ? b ^ 1 : b))],
      ['the header', bytes.map((b, i) => (i === 60 ? b ^ 1 : b))],
      ['the digest', bytes.map((b, i) => (i === 20 ? b ^ 1 : b))],
      ['the end', bytes.subarray(0, bytes.length - 1)],
      ['everything', bytes.subarray(0, 0)],
    ] as const) {
      writeFileSync(cache, damage)
      const healed = await load()
      assert.is(healed.decoded, 9, name)
      assert.equal(healed.data, first.data, name)
      assert.is((await load()).decoded, 0, name)
    }
    const images = join(folder, 'train', IDS[0], 'images')
    renameSync(join(images, `${IDS[0]}_1.JPEG`), join(images, `${IDS[0]}_5.JPEG`))
    assert.is((await load()).decoded, 9)
    rmSync(join(images, `${IDS[0]}_5.JPEG`))
    const fewer = await load()
    assert.equal([fewer.decoded, fewer.data.train.count], [8, 6])
  }),
)

test(
  'where nothing can be kept, images are decoded each time',
  inFolder(async (folder) => {
    official(folder)
    const full = right(await loadFolder(files)(folder)())
    rmSync(join(folder, CACHE))
    const reader = { read: files.read, list: files.list }
    assert.equal(right(await loadFolder(reader)(folder)()), full)
    const refusing: FileReader = { ...reader, write: (path) => TE.left({ kind: 'file', path, message: 'read-only' }) }
    assert.equal(right(await loadFolder(refusing)(folder)()), full)
  }),
)

test(
  'errors name file, place and expectation',
  inFolder(async (folder) => {
    const spoilt = async (path: string, content: string | Uint8Array | undefined): Promise<string> => {
      rmSync(folder, { recursive: true })
      official(folder)
      const full = join(folder, path)
      if (content === undefined) rmSync(full, { recursive: true })
      else write(full, content)
      return left(await loadFolder(files)(folder)()).replaceAll(folder, 'F')
    }
    assert.is(
      await spoilt('wnids.txt', undefined),
      'F: the data set is not whole: for Tiny-ImageNet there is no wnids.txt',
    )
    assert.is(
      await spoilt('wnids.txt', 'n02124075\ncat\n'),
      'F/wnids.txt (line 2): expected a WordNet id such as n01443537, found "cat"',
    )
    assert.is(
      await spoilt('wnids.txt', 'n02124075\nn02124075\n'),
      'F/wnids.txt (line 2): expected each class once, found n02124075 again',
    )
    assert.is(await spoilt(`train/${IDS[0]}`, undefined), `F/train/${IDS[0]}/images: there is no such file or folder`)
    for (const line of [`val_0.JPEG\tn99999999\t0`, 'val_0.JPEG', `../../x.JPEG\t${IDS[0]}`])
      assert.is(
        await spoilt('val/val_annotations.txt', `val_1.JPEG\t${IDS[0]}\n${line}\n`),
        `F/val/val_annotations.txt (line 2): expected the name of a JPEG file and a class of wnids.txt, found ${JSON.stringify(line)}`,
      )
    assert.is(
      await spoilt('val/images/val_1.JPEG', undefined),
      'F/val/images/val_1.JPEG: there is no such file or folder',
    )
    const whole = image(0, 0)
    for (const cut of [1, 2, 30, whole.length - 60, whole.length - 2])
      assert.match(
        await spoilt(`train/${IDS[1]}/images/${IDS[1]}_2.JPEG`, whole.subarray(0, cut)),
        /^F\/train\/n01443537\/images\/n01443537_2.JPEG \([^)]*\): expected a JPEG image: damaged or truncated data$/,
      )
    assert.is(
      await spoilt('val/images/val_0.JPEG', jpeg(8, 16, [[9], [9]])),
      'F/val/images/val_0.JPEG: expected an image of 64 x 64 pixels, found 8 x 16',
    )
  }),
)

test.run()
