/** SHA-256 in hexadecimal. */
export const sha256 = async (bytes: Uint8Array): Promise<string> => {
  const hash = await globalThis.crypto.subtle.digest('SHA-256', Uint8Array.from(bytes))
  return Array.from(new Uint8Array(hash), (b) => b.toString(16).padStart(2, '0')).join('')
}
