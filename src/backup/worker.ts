import { answerJobs } from '../threads.js';
import { FrameDigests, type FrameJob } from './frame-digests.js';

const digests = new FrameDigests();

answerJobs((job: FrameJob) => digests.take(job));
