// Counts the quiz at the end of a chapter. Without this script every option still opens and answers.
addEventListener("DOMContentLoaded", () => {
  for (const quiz of document.querySelectorAll("ol.quiz")) {
    const questions = [...quiz.children];
    const first = new Map(); // question -> was the first option that was opened the right one?
    const tally = document.createElement("p");
    tally.className = "quiz-tally";
    tally.setAttribute("role", "status");
    const again = document.createElement("button");
    again.type = "button";
    again.textContent = "Start again";
    again.className = "quiz-again";
    again.hidden = true;
    quiz.after(tally, again);
    const tell = () => {
      const right = [...first.values()].filter(Boolean).length;
      tally.textContent = first.size
        ? `${first.size} of ${questions.length} questions answered, ${right} right at the first try.`
        : "";
      again.hidden = !first.size;
    };
    for (const question of questions)
      for (const option of question.querySelectorAll("details"))
        option.addEventListener("toggle", () => {
          if (!option.open || first.has(question) || quiz.dataset.printing) return;
          first.set(question, option.classList.contains("quiz-right"));
          tell();
        });
    again.addEventListener("click", () => {
      first.clear();
      for (const option of quiz.querySelectorAll("details")) option.open = false;
      tell();
      quiz.querySelector("summary").focus();
    });
  }
});
