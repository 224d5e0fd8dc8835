import { execFile } from 'node:child_process';
import { dirname } from 'node:path';
import { expect } from 'vitest';
import type { BuilderAnswer } from '../../src/serve/restore/builder.js';
import { installedCommand } from './restoring.js';

export interface PageSaid {
  answer: BuilderAnswer;
  html: string;
  /** As a browser copies it. */
  command: string | undefined;
}

/** What the restore page of a server says, and what it says for programs. */
export async function askPage(
  origin: string,
  server: string,
  params: Record<string, string> | URLSearchParams,
): Promise<PageSaid> {
  const path = (end: string) =>
    `${origin}/server/${server}/restore${end}?${new URLSearchParams(params)}`;
  const [page, data] = await Promise.all([fetch(path('')), fetch(path('.json'))]);
  const answer = (await data.json()) as BuilderAnswer;
  const html = await page.text();
  expect([page.status, data.status], html).toEqual([200, 200]);
  const [, block] = /<pre class="command" id="command"[^>]*>([^<]*)<\/pre>/.exec(html) ?? [];
  return { answer, html, command: block === undefined ? undefined : textOf(block) };
}

const ENTITIES: Record<string, string> = { lt: '<', gt: '>', amp: '&', quot: '"', '#39': "'" };

export const textOf = (html: string): string =>
  html.replace(/&([^;]+);/g, (all, name: string) => ENTITIES[name] ?? all);

/** Runs a command as somebody would who pastes it. */
export async function pasted(command: string): Promise<void> {
  const path = `${dirname(installedCommand())}:${dirname(process.execPath)}:${process.env.PATH}`;
  await new Promise<void>((resolve, reject) => {
    execFile('/bin/sh', ['-c', command], { env: { PATH: path } }, (error, stdout, stderr) =>
      error ? reject(new Error(`${command}\n${stdout}${stderr}`, { cause: error })) : resolve(),
    );
  });
}
