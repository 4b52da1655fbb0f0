/** A certificate for 127.0.0.1 that signs itself, made on the spot: no key lies in the repository, and no tool is needed. */
import { generateKeyPairSync, sign } from 'node:crypto'

/** PEM texts. Whoever trusts `cert` as an authority trusts the server that has it. */
export function selfSigned(): { readonly key: string; readonly cert: string } {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const name = sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from('sealgate test')))))
  const time = (text: string): Buffer => der(0x17, Buffer.from(text))
  const extension = (id: string, value: Buffer): Buffer => sequence(oid(id), der(0x04, value))
  const isAuthority = extension('551d13', sequence(der(0x01, Buffer.of(0xff))))
  const names = extension('551d11', sequence(der(0x87, Buffer.of(127, 0, 0, 1))))
  const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'))
  const content = sequence(
    der(0xa0, der(0x02, Buffer.of(2))),
    der(0x02, Buffer.of(1)),
    ecdsaWithSha256,
    name,
    sequence(time('200101000000Z'), time('491231235959Z')),
    name,
    publicKey.export({ format: 'der', type: 'spki' }),
    der(0xa3, sequence(isAuthority, names)),
  )
  const signature = der(0x03, Buffer.concat([Buffer.of(0), sign('sha256', content, privateKey)]))
  const lines = sequence(content, ecdsaWithSha256, signature).toString('base64').replaceAll(/.{64}/g, '$&\n')
  return {
    key: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
    cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
  }
}

function der(tag: number, content: Buffer): Buffer {
  const { length } = content
  const head = length < 128 ? [tag, length] : [tag, 0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from(head), content])
}

const sequence = (...parts: readonly Buffer[]): Buffer => der(0x30, Buffer.concat(parts))
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'))
