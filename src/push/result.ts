/** What became of a pushed file. */
export interface PushResult {
  /**
   * `stored`: under its name. `present`: the archive had all of it. `extended`: it replaced a
   * partial file that had less. `beside`: stored under another name that is read for the same
   * segment. `aside`: it contradicts what is there and was kept as a dotfile, or
   * under `conflict/`. `mended`: it replaced a
   * damaged history file, which was kept as a dotfile. `apart`: it is of a timeline that the archive
   * has passed by, and was kept as a dotfile.
   */
  outcome: 'stored' | 'present' | 'extended' | 'beside' | 'aside' | 'mended' | 'apart';
  /** What has the content in the archive: a bare file name, in a store a key. */
  name: string;
}
