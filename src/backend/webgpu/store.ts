import type { Data } from '../../compile/backend.ts'
import { pagesIn } from './pages.ts'
import type { Watch } from './watch.ts'

// Numbers on a device: stores of pages, and what goes to them and back.

/** Usage flags by the WebGPU specification: the global names of them are missing in Node. */
export const COPY_SRC = 0x4
export const COPY_DST = 0x8
export const UNIFORM = 0x40
export const STORAGE = 0x80
const MAP_READ = 0x1

/** Bytes of a buffer of so many elements; whole vec4<f32>, and never none. */
export const bytesOf = (length: number): number => Math.max(16, Math.ceil(length / 4) * 16)

const floats = (data: Data): Float32Array<ArrayBuffer> =>
  data instanceof Float32Array && data.buffer instanceof ArrayBuffer
    ? (data as Float32Array<ArrayBuffer>)
    : Float32Array.from(data)

export const destroy = (buffers: readonly GPUBuffer[]): void => {
  for (const b of buffers) b.destroy()
}

/** Pages of a device. */
export interface Store {
  /** Elements of a page. */
  readonly page: number
  /** Pages for so many elements, from the first on or from a later one. */
  readonly take: (length: number, usage: number, what: string, from?: number) => readonly GPUBuffer[]
  readonly write: (pages: readonly GPUBuffer[], data: Data, at: number) => void
  readonly read: (pages: readonly GPUBuffer[], at: number, length: number) => Promise<Float32Array>
}

export const storeOn = (device: GPUDevice, { take, settle }: Watch, page: number): Store => {
  const { queue } = device
  /** The parts of a range of elements that lie on one page each. */
  const partsOf = (at: number, length: number) => {
    const parts: { readonly page: number; readonly at: number; readonly from: number; readonly length: number }[] = []
    for (let done = 0; done < length; ) {
      const start = at + done
      const n = Math.min(length - done, page - (start % page))
      parts.push({ page: Math.floor(start / page), at: start % page, from: done, length: n })
      done += n
    }
    return parts
  }
  const readPart = async (from: GPUBuffer, at: number, length: number): Promise<Float32Array> => {
    const size = length * 4
    const staging = take(size, MAP_READ | COPY_DST, 'a read')
    try {
      const encoder = device.createCommandEncoder()
      encoder.copyBufferToBuffer(from, at * 4, staging, 0, size)
      queue.submit([encoder.finish()])
      await settle(staging.mapAsync(1))
      return new Float32Array(staging.getMappedRange().slice(0))
    } finally {
      staging.destroy()
    }
  }
  return {
    page,
    take: (length, usage, what, from = 0) =>
      pagesIn(length, page)
        .slice(from)
        .map((n) => take(bytesOf(n), usage, what)),
    write: (pages, data, at) => {
      const all = floats(data)
      for (const p of partsOf(at, data.length)) queue.writeBuffer(pages[p.page], p.at * 4, all, p.from, p.length)
    },
    read: async (pages, at, length) => {
      const parts = partsOf(at, length)
      const [first] = parts
      if (parts.length === 1) return readPart(pages[first.page], first.at, length)
      const all = new Float32Array(length)
      for (const p of parts) all.set(await readPart(pages[p.page], p.at, p.length), p.from)
      return all
    },
  }
}

/** Scratch that all programs share, since runs are sequential. `id` changes whenever it moves. */
export interface Arena {
  readonly id: number
  readonly pages: readonly GPUBuffer[]
  readonly length: number
}

/** An arena that grows; `grown` is told by how many bytes, `fresh` numbers it anew. */
export const arenaIn = (
  { page, take }: Store,
  { settle }: Watch,
  fresh: () => number,
  grown: (bytes: number) => void,
) => {
  let arena: Arena = { id: 0, pages: [], length: 0 }
  /** Pages that are full stay; a last one that is not, and what is missing, is made anew. */
  const grow = async (length: number): Promise<void> => {
    if (length <= arena.length && arena.pages.length > 0) return
    const before = arena
    const full = Math.floor(before.length / page)
    const pages = take(length, STORAGE, 'the scratch of a run', full)
    await settle(Promise.resolve()).catch((e) => {
      destroy(pages)
      throw e
    })
    // Another compilation may have grown it meanwhile.
    if (arena !== before) {
      destroy(pages)
      return grow(length)
    }
    destroy(before.pages.slice(full))
    grown((length - before.length) * 4)
    arena = { id: fresh(), pages: [...before.pages.slice(0, full), ...pages], length }
  }
  return { grow, now: () => arena }
}
