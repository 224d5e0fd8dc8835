/** A notice to the operator that is no error. `code` is stable. */
export interface ReceiverWarning {
  code: string;
  message: string;
  hint?: string;
}
