/** What WebCrypto takes: it refuses memory that threads share. */
const own = (bytes: Uint8Array): Uint8Array<ArrayBuffer> =>
  bytes.buffer instanceof ArrayBuffer ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes)

/** The 32 bytes of SHA-256. */
export const digest = async (bytes: Uint8Array): Promise<Uint8Array> =>
  new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', own(bytes)))

const DIGITS = Array.from({ length: 256 }, (_, b) => b.toString(16).padStart(2, '0'))
export const hexadecimal = (bytes: Uint8Array): string => bytes.reduce((text, b) => text + DIGITS[b], '')

/** SHA-256 in hexadecimal. */
export const sha256 = async (bytes: Uint8Array): Promise<string> => hexadecimal(await digest(bytes))

const PIECE = 2 ** 24

/** SHA-256 of the SHA-256 of pieces of 16 MB: other events of the process come between, whatever the length. */
export const digestOfPieces = async (bytes: Uint8Array): Promise<Uint8Array> => {
  const digests: number[] = []
  for (let at = 0; at < bytes.length; at += PIECE) digests.push(...(await digest(bytes.subarray(at, at + PIECE))))
  return digest(Uint8Array.from(digests))
}
