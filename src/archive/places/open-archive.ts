import type { Archive } from '../archive.js';
import { openDirectory } from './directory-archive.js';

/** The archive at a place. Nothing is looked at yet. */
export function openArchive(place: string): Archive {
  return openDirectory(place);
}
