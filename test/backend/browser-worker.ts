import { wasmHash } from './portable.ts'

addEventListener('message', async ({ data }: MessageEvent<number>) => postMessage(await wasmHash(data)))
