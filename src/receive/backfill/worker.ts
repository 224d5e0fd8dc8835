import { answerJobs } from '../../threads.js';
import { BackfillWork } from './work.js';

const work = new BackfillWork();

answerJobs(work.run.bind(work));
