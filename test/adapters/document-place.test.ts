import { describe, expect, it } from 'vitest'
import { documentPlace, placeName } from '../../lib/adapters/document-place.ts'

const ARN = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:keys/directory-AbCdEf'

describe('the place of a document', () => {
  it.each([
    ['keys/directory.jws', { kind: 'file', path: 'keys/directory.jws' }],
    ['C/odd name:1', { kind: 'file', path: 'C/odd name:1' }],
    ['s3://my-bucket/a/b.jws', { kind: 's3', bucket: 'my-bucket', key: 'a/b.jws' }],
    [ARN, { kind: 'secret', arn: ARN }],
  ])('%s is what it looks like', (text, place) => {
    expect(documentPlace(text)).toEqual(place)
    expect(placeName(documentPlace(text))).toBe(text)
  })

  it('keeps what follows the path of an address to itself', () => {
    const place = documentPlace('https://keys.example.com/directory.jws?signature=planted', 'ca.pem')
    expect(place).toMatchObject({ kind: 'https', caFile: 'ca.pem' })
    expect(placeName(place)).toBe('https://keys.example.com/directory.jws')
  })

  it.each([
    ['', 'empty'],
    ['http://keys.example.com/directory.jws', 'Without TLS'],
    ['HTTP://keys.example.com/directory.jws', 'Without TLS'],
    ['https://ann:planted@keys.example.com/', 'user or password'],
    ['https://keys.example.com/#planted', 'fragment'],
    ['https://', 'no https address'],
    ['s3://bucket', 'no s3://bucket/key'],
    ['s3://Bucket/planted', 'no s3://bucket/key'],
    ['s3://bucket/\nplanted', 'no s3://bucket/key'],
    ['arn:aws:kms:eu-central-1:111122223333:key/planted', 'no ARN of a Secrets Manager secret'],
    ['ftp://planted/', 'Nothing is kept at ftp:'],
  ])('%j is none, and is not quoted', (text, reason) => {
    expect(() => documentPlace(text)).toThrow(reason)
    expect(() => documentPlace(text)).not.toThrow('planted')
  })

  it('takes an authority for https alone', () => {
    expect(() => documentPlace('directory.jws', 'ca.pem')).toThrow('An authority is for https addresses.')
  })
})
